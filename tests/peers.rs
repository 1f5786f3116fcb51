//! Real programs that tests drive. `tests/peers.sh` puts them into `target/peers`.
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A program's name with its place.
pub struct Peer {
    pub name: &'static str,
    pub program: PathBuf,
}

/// Those of the wanted programs that are there. In CI each must be; elsewhere a missing one is told.
fn found(wanted: &[(&'static str, &str)]) -> Vec<Peer> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers");
    let mut peers = Vec::new();
    for (name, place) in wanted {
        let program = root.join(place);
        if program.exists() {
            peers.push(Peer { name, program });
        } else {
            assert!(
                std::env::var_os("CI").is_none(),
                "{name} is missing in CI: tests/peers.sh should have put it there"
            );
            println!("skipped: {name} not installed (tests/peers.sh installs it)");
        }
    }
    peers
}

/// The oldest supported Caddy and a current one.
pub fn caddies() -> Vec<Peer> {
    found(&[("caddy 2.6", "caddy-debian/usr/bin/caddy"), ("caddy 2.11", "venv/bin/caddy")])
}

/// The first Traefik 3 and a current one.
pub fn traefiks() -> Vec<Peer> {
    found(&[("traefik 3.0", "traefik-3.0/traefik"), ("traefik 3.7", "venv/bin/traefik")])
}

/// nginx, HAProxy and Apache of Debian 12.
pub fn proxies() -> Vec<Peer> {
    let place = |name| ["proxies/usr/sbin/", name].concat();
    found(&[("nginx", &place("nginx")), ("haproxy", &place("haproxy")), ("apache", &place("apache2"))])
}

/// Every supported kubectl, the oldest first.
pub fn kubectls() -> Vec<Peer> {
    found(&[
        ("kubectl 1.29", "kubectl-1.29/kubectl"),
        ("kubectl 1.30", "kubectl-1.30/kubectl"),
        ("kubectl 1.31", "kubectl-1.31/kubectl"),
        ("kubectl 1.32", "kubectl-1.32/kubectl"),
        ("kubectl 1.33", "kubectl-1.33/kubectl"),
        ("kubectl 1.34", "kubectl-1.34/kubectl"),
        ("kubectl 1.35", "kubectl-1.35/kubectl"),
        ("kubectl 1.36", "kubectl-1.36/kubectl"),
        ("kubectl 1.37", "kubectl-1.37/kubectl"),
    ])
}

/// Older ones, which do a part: Debian 12's and that of 1.27.
pub fn old_kubectls() -> Vec<Peer> {
    found(&[("kubectl 1.20", "kubectl-1.20/usr/bin/kubectl"), ("kubectl 1.27", "kubectl-1.27/kubectl")])
}

/// A current helm.
pub fn helm() -> Option<Peer> {
    found(&[("helm", "kubectl-1.36/helm")]).pop()
}

/// The checker of rendered objects.
pub fn kubernetes_validate() -> Option<Peer> {
    found(&[("kubernetes-validate", "venv/bin/kubernetes-validate")]).pop()
}

/// Debian's browser driver, with its browser beside it.
pub fn chromedriver() -> Option<Peer> {
    found(&[("chromium", "/usr/bin/chromium")]).pop()?;
    found(&[("chromedriver", "/usr/bin/chromedriver")]).pop()
}

/// Where the unpacked programs find their libraries.
pub fn libraries() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/proxies/usr/lib/x86_64-linux-gnu")
}

/// Where the unpacked Apache has its modules.
pub fn apache_modules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/proxies/usr/lib/apache2/modules")
}

/// A child process that ends with its owner.
pub struct Running(Child);

impl Running {
    /// Starts it with a home of its own and without output.
    pub fn start(program: &Path, home: &Path, arguments: &[&str]) -> Self {
        Self::start_with(program, home, arguments, &[])
    }
    /// The same with more variables.
    pub fn start_with(program: &Path, home: &Path, arguments: &[&str], more: &[(&str, &Path)]) -> Self {
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", home)
            .env("XDG_DATA_HOME", home)
            .env("XDG_CONFIG_HOME", home)
            .envs(more.iter().copied())
            .current_dir(home)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("the program starts");
        Self(child)
    }
    /// The program and whatever it has started: the workers of a killed nginx or Apache would go on without it.
    pub fn kill(&mut self) {
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args(["-9", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A loopback port that nobody else is given: below the range from which the system takes ports by itself, and
/// each one once in this process.
pub fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes beside each other begin at different places.
    let start = (std::process::id() % 100) as u16 * 100;
    loop {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
