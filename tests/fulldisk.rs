//! The program on a disk that becomes full: a small file system of its own, in a mount namespace of its own.
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::process::PROGRAM;

/// Longest wait for the program to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The running program; it ends with this value.
struct Standalone {
    child: Child,
    /// Its data directory as this process sees it.
    data: PathBuf,
}

impl Standalone {
    /// The program itself, beneath the shell that starts it again.
    fn pid(&self) -> Option<String> {
        let id = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        children.split_whitespace().next().map(str::to_owned)
    }

    /// `kill -9`; the shell starts it again on the same file system.
    fn kill_and_start_again(&self) {
        std::fs::remove_file(self.data.join("kubeconfig")).unwrap();
        let pid = self.pid().expect("it runs");
        assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    }
}

impl Drop for Standalone {
    fn drop(&mut self) {
        let pid = self.pid();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(pid) = pid {
            let _ = Command::new("kill").args(["-9", &pid]).status();
        }
    }
}

/// `unshare` with what it needs to make a mount namespace here; `None` where that is not allowed.
fn namespaces() -> Option<Vec<&'static str>> {
    let ways = [vec!["--mount"], vec!["--mount", "--user", "--map-root-user"]];
    let works = |way: &Vec<&str>| {
        let tried = Command::new("unshare").args(way).args(["mount", "-t", "tmpfs", "none", "/mnt"]).output();
        tried.is_ok_and(|output| output.status.success())
    };
    let found = ways.into_iter().find(works);
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "CI must be able to make mount namespaces");
        println!("skipped: no mount namespace can be made here");
    }
    found
}

/// Starts it on a file system of four mebibytes, half a one of them taken by a file that can be removed.
fn start(way: &[&str], folder: &Path) -> Standalone {
    let data = folder.join("data");
    std::fs::create_dir(&data).unwrap();
    let script = r#"mount -t tmpfs -o size=4m,mode=0700 none "$1" && head -c 524288 /dev/zero >"$1/ballast" && shift && while :; do "$@"; done"#;
    let free = "127.0.0.1:0";
    let child = Command::new("unshare")
        .args(way)
        .args(["sh", "-c", script, "sh"])
        .arg(&data)
        .arg(PROGRAM)
        .args(["standalone", "--data"])
        .arg(&data)
        .args(["--listen", free, "--api-listen", free, "--health-listen", free])
        .env_clear()
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
        .env("HOME", folder)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let seen = Path::new("/proc").join(child.id().to_string()).join("root");
    let data = seen.join(data.strip_prefix("/").unwrap());
    Standalone { child, data }
}

async fn connect(program: &Standalone) -> kube::Client {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Ok(config) = Kubeconfig::read_from(program.data.join("kubeconfig"))
            && let Ok(mut config) = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await
        {
            config.default_retry = false;
            let client = kube::Client::try_from(config).unwrap();
            if Api::<ConfigMap>::all(client.clone()).list(&ListParams::default()).await.is_ok() {
                return client;
            }
        }
        assert!(Instant::now() < end, "the program does not answer");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn map(name: &str) -> ConfigMap {
    let data = Some([("text".to_owned(), "x".repeat(50_000))].into());
    ConfigMap { metadata: ObjectMeta { name: Some(name.to_owned()), ..Default::default() }, data, ..Default::default() }
}

#[tokio::test]
async fn readiness_says_that_nothing_can_be_written_and_liveness_does_not() {
    portalkeeper::http::install_crypto_provider();
    let Some(way) = namespaces() else { return };
    let folder = tempfile::tempdir().unwrap();
    let program = start(&way, folder.path());
    let client = connect(&program).await;
    let status = async |path: &str| {
        let request = hyper::Request::get(path).body(kube::client::Body::empty()).unwrap();
        client.send(request).await.unwrap().status().as_u16()
    };
    let until = async |expected: u16| {
        let end = Instant::now() + PATIENCE;
        while status("/readyz").await != expected {
            assert!(Instant::now() < end, "readiness is not {expected}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    assert_eq!(status("/readyz").await, 200);
    // when somebody else fills the disk
    let filler = program.data.join("filler");
    assert!(std::fs::write(&filler, vec![0; 8 << 20]).is_err(), "four mebibytes hold eight");
    until(500).await;
    assert_eq!((status("/readyz/etcd").await, status("/livez").await), (500, 200));
    // when there is room again
    std::fs::remove_file(filler).unwrap();
    until(200).await;
}

#[tokio::test]
async fn a_full_disk_is_told_reads_go_on_and_writes_come_back_with_room() {
    portalkeeper::http::install_crypto_provider();
    let Some(way) = namespaces() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut program = start(&way, folder.path());
    let client = connect(&program).await;
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    // when more is written than there is room for, several times over
    let mut written = Vec::new();
    let mut refusals = Vec::new();
    while refusals.len() < 4 {
        let name = format!("m{:03}", written.len());
        match maps.create(&PostParams::default(), &map(&name)).await {
            Ok(_) => written.push(name),
            Err(kube::Error::Api(status)) => refusals.push(status),
            Err(other) => panic!("{other}"),
        }
        assert!(written.len() < 200, "four mebibytes hold more than they can");
    }
    let refused = &refusals[0];
    // then that is said in words, nothing half-written is seen, and everything can be read
    assert_eq!((refused.code, refused.reason.as_str()), (500, "InternalError"));
    assert!(refused.message.contains("nothing was changed; is the disk full or read-only?"), "{}", refused.message);
    assert!(program.child.try_wait().unwrap().is_none(), "the program goes on");
    let names = async || {
        let list = maps.list(&ListParams::default()).await.unwrap();
        list.items.into_iter().filter_map(|map| map.metadata.name).collect::<Vec<_>>()
    };
    assert_eq!(names().await, written);
    assert_eq!(maps.get(&written[0]).await.unwrap().data, map("x").data);
    // when there is room again, then it is written to without a restart
    std::fs::remove_file(program.data.join("ballast")).unwrap();
    for name in ["x", "y", "z"] {
        maps.create(&PostParams::default(), &map(name)).await.unwrap();
        written.push(name.to_owned());
    }
    maps.delete(&written[0], &Default::default()).await.unwrap();
    written.remove(0);
    assert_eq!(names().await, written);
    // and what was acknowledged then is on the disk: a kill loses nothing of it
    program.kill_and_start_again();
    let maps: Api<ConfigMap> = Api::namespaced(connect(&program).await, "default");
    let list = maps.list(&ListParams::default()).await.unwrap();
    assert_eq!(list.items.into_iter().filter_map(|map| map.metadata.name).collect::<Vec<_>>(), written);
}
