//! The real program as a child process, as people start it.
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The built program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_portalkeeper");

/// Longest wait for the program to say that it runs.
const PATIENCE: Duration = Duration::from_secs(30);

/// A command of the program with a clean environment, so that nothing of the machine's own leaks in.
pub fn command(home: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home).current_dir(home).stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn output(home: &Path, arguments: &[&str]) -> Output {
    command(home).args(arguments).output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A running sandbox; it ends with this value.
pub struct Sandbox {
    child: Child,
    pub greeting: String,
    pub kubeconfig: PathBuf,
    pub pages: SocketAddr,
    pub simulators: SocketAddr,
}

/// What stands after a word of the greeting, up to the next blank or slash.
fn after<'a>(greeting: &'a str, words: &str) -> &'a str {
    let rest = greeting.split(words).nth(1).unwrap_or_else(|| panic!("no {words:?} in {greeting}"));
    rest.split(['/', ' ', '\n']).next().unwrap()
}

impl Sandbox {
    /// Starts it on free ports with its data in `folder/data`, and waits for the greeting.
    pub fn start(folder: &Path) -> Self {
        let data = folder.join("data");
        let free = "127.0.0.1:0";
        let mut child = command(folder)
            .args(["sandbox", "--data"])
            .arg(&data)
            .args(["--listen", free, "--api-listen", free, "--health-listen", free, "--simulators-listen", free])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        let mut greeting = String::new();
        let began = Instant::now();
        while !greeting.contains("Ctrl-C stops") {
            let read = reader.read_line(&mut greeting).unwrap();
            if read == 0 || began.elapsed() > PATIENCE {
                let mut errors = String::new();
                let _ = child.kill();
                let _ = child.stderr.take().unwrap().read_to_string(&mut errors);
                panic!("the sandbox does not run: {greeting}{errors}");
            }
        }
        let port = after(&greeting, "http://reset.acme.localhost:").parse().unwrap();
        let simulators = after(&greeting, "the inbox        http://").parse().unwrap();
        let pages = SocketAddr::from(([127, 0, 0, 1], port));
        Self { child, greeting, kubeconfig: data.join("kubeconfig"), pages, simulators }
    }

    /// What Ctrl-C does: a signal, and the exit code once it has ended.
    pub fn interrupt(mut self) -> i32 {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-INT", &pid]).status().unwrap();
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(began.elapsed() < PATIENCE, "Ctrl-C does not end it");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
