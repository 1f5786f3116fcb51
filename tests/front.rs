//! Real proxies that run our snippets, and clients that try to forge things through them.
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portalkeeper::api::{HostName, Origin};
use portalkeeper::app::snippets::render;
use portalkeeper::backends::manual::{Dialect, Edge, Place, Purpose, snippet};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::peers::{Peer, Running, apache_modules, caddies, free_port, libraries, proxies};
use crate::world::Answer;

pub const HOST: &str = "reset.acme.localhost";

/// Every program with the dialect that it reads.
pub fn programs() -> Vec<(Peer, Dialect)> {
    let dialect = |peer: &Peer| match peer.name {
        // Debian's is older than 1.25.1.
        "nginx" => Dialect::NginxOld,
        "haproxy" => Dialect::Haproxy,
        "apache" => Dialect::Apache,
        _ => Dialect::Caddy,
    };
    let known = |peer: Peer| {
        let dialect = dialect(&peer);
        (peer, dialect)
    };
    proxies().into_iter().chain(caddies()).map(known).collect()
}

pub fn place(edge: Edge, origin: &str) -> Place {
    let host = HostName::parse(HOST).expect("a host name");
    Place { host, origin: Origin::parse(origin).expect("an origin"), edge, purpose: Purpose::Portal }
}

/// The same place at another host.
pub fn at_host(place: &Place, host: &str, purpose: Purpose) -> Place {
    Place { host: HostName::parse(host).expect("a host name"), purpose, ..place.clone() }
}

fn certificate(folder: &Path, host: &HostName) {
    let made = rcgen::generate_simple_self_signed([host.to_string()]).expect("a certificate");
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    std::fs::write(folder.join(format!("{host}.crt")), &certificate).expect("written");
    std::fs::write(folder.join(format!("{host}.key")), &key).expect("written");
    // All files of HAProxy's folder are certificates.
    std::fs::create_dir_all(folder.join("portals")).expect("a folder");
    std::fs::write(folder.join(format!("portals/{host}.pem")), certificate + &key).expect("written");
}

/// What the program prints for the first place, as it is, and beneath it what is to be added for each other one.
pub fn printed(dialect: Dialect, places: &[Place]) -> String {
    let more = places[1..].iter().map(|place| snippet(dialect, place).each);
    [render(&places[0], None, Some(dialect))].into_iter().chain(more).collect()
}

/// A folder with a whole configuration around the snippet, and how the program is told to read it.
struct Prepared {
    folder: tempfile::TempDir,
    address: SocketAddr,
    check: Vec<String>,
    run: Vec<String>,
}

/// `edge_is` stands in for one of Cloudflare's networks, and loopback addresses for the machine's own.
fn prepare(dialect: Dialect, text: &str, hosts: &[HostName], edge_is: &str) -> Prepared {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().display().to_string();
    hosts.iter().for_each(|host| certificate(folder.path(), host));
    let port = free_port();
    let at = format!("127.0.0.1:{port}");
    let text = text
        .replace("/etc/ssl/portals", &path)
        .replace("/etc/haproxy/portals", &format!("{path}/portals"))
        .replace("173.245.48.0/20", edge_is)
        .replace("listen 443", &format!("listen {at}"))
        .replace("listen [::]:443", &format!("listen [::1]:{port}"))
        .replace("bind :443", &format!("bind {at}"))
        .replace("bind :::443", &format!("bind [::1]:{port}"))
        .replace("<VirtualHost *:443>", &format!("<VirtualHost {at}>"));
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let (file, whole, check, run) = match dialect {
        Dialect::Nginx | Dialect::NginxOld => {
            let temp =
                ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|k| format!("{k}_temp_path {k};\n")).concat();
            let whole = format!(
                "user root;\npid nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{temp}{text}}}\n"
            );
            let base = ["-e", "stderr", "-p", &format!("{path}/"), "-c", "nginx.conf"].map(str::to_owned).to_vec();
            let with = |more: &[&str]| [base.clone(), words(more)].concat();
            ("nginx.conf", whole, with(&["-t", "-q"]), with(&["-g", "daemon off;"]))
        }
        Dialect::Haproxy => {
            let defaults = "defaults\n    timeout connect 5s\n    timeout client 30s\n    timeout server 30s\n\n";
            let file = "haproxy.cfg";
            (file, defaults.to_owned() + &text, words(&["-c", "-f", file]), words(&["-db", "-f", file]))
        }
        Dialect::Apache => {
            let modules =
                ["mpm_event", "authz_core", "headers", "ssl", "socache_shmcb", "remoteip", "proxy", "proxy_http"]
                    .map(|m| format!("LoadModule {m}_module {}/mod_{m}.so\n", apache_modules().display()))
                    .concat();
            let frame = format!(
                "ServerRoot {path}\nServerName localhost\nPidFile {path}/apache.pid\nErrorLog {path}/error.log\n\
                 User nobody\nGroup nogroup\nListen {at}\n"
            );
            let file = format!("{path}/apache.conf");
            let run = words(&["-f", &file, "-DFOREGROUND"]);
            ("apache.conf", modules + &frame + &text, words(&["-t", "-f", &file]), run)
        }
        _ => {
            // Its own admin endpoint and certificates would be shared with other tests.
            let options = "\tadmin off\n\tauto_https disable_redirects\n";
            let mut whole = match text.contains("\n{\n") {
                true => text.replacen("\n{\n", &format!("\n{{\n{options}"), 1),
                false => format!("{{\n{options}}}\n\n{text}"),
            };
            for host in hosts {
                let site =
                    format!("https://{host}:{port} {{\n\tbind 127.0.0.1\n\ttls {path}/{host}.crt {path}/{host}.key\n");
                whole = whole.replace(&format!("\n{host} {{\n"), &format!("\n{site}"));
            }
            let base = words(&["--config", "Caddyfile", "--adapter", "caddyfile"]);
            let with = |verb: &str| [words(&[verb]), base.clone()].concat();
            ("Caddyfile", whole, with("validate"), with("run"))
        }
    };
    std::fs::write(folder.path().join(file), whole).expect("written");
    Prepared { folder, address: ([127, 0, 0, 1], port).into(), check, run }
}

/// Runs the program's own check over the snippet; it must pass.
pub fn check(peer: &Peer, dialect: Dialect, place: &Place) {
    check_text(peer, dialect, &printed(dialect, std::slice::from_ref(place)), std::slice::from_ref(&place.host));
}

/// The same over any text with these hosts.
pub fn check_text(peer: &Peer, dialect: Dialect, text: &str, hosts: &[HostName]) {
    let prepared = prepare(dialect, text, hosts, "127.0.0.2/32");
    let home = prepared.folder.path();
    let output = Command::new(&peer.program)
        .args(&prepared.check)
        .env("LD_LIBRARY_PATH", libraries())
        .env("HOME", home)
        .env("XDG_DATA_HOME", home)
        .env("XDG_CONFIG_HOME", home)
        .current_dir(home)
        .output()
        .expect("the program starts");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{} refuses our snippet:\n{said}\n{text}", peer.name);
}

/// A running proxy with our snippet.
pub struct Front {
    pub address: SocketAddr,
    _process: Running,
    _folder: tempfile::TempDir,
}

impl Front {
    pub async fn start(peer: &Peer, dialect: Dialect, place: &Place, edge_is: &str) -> Self {
        let text = printed(dialect, std::slice::from_ref(place));
        Self::start_with(peer, dialect, &text, std::slice::from_ref(&place.host), edge_is).await
    }

    /// The same with any text with these hosts.
    pub async fn start_with(peer: &Peer, dialect: Dialect, text: &str, hosts: &[HostName], edge_is: &str) -> Self {
        let Prepared { folder, address, run, .. } = prepare(dialect, text, hosts, edge_is);
        let arguments: Vec<&str> = run.iter().map(String::as_str).collect();
        let libraries = libraries();
        let process = Running::start_with(&peer.program, folder.path(), &arguments, &[("LD_LIBRARY_PATH", &libraries)]);
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).await.is_err() {
            assert!(Instant::now() < deadline, "{} does not start", peer.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { address, _process: process, _folder: folder }
    }

    /// One request over TLS, from a loopback address of the client's choice.
    pub async fn ask(&self, from: &str, request: &str) -> Answer {
        self.ask_host(HOST, from, request).await
    }

    /// The same for another host.
    pub async fn ask_host(&self, host: &str, from: &str, request: &str) -> Answer {
        let stream = connect(self.address, from).await;
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).expect("a name");
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS");
        exchange(stream, request).await
    }
}

/// One request without TLS.
pub async fn ask_plain(address: SocketAddr, from: &str, request: &str) -> Answer {
    exchange(connect(address, from).await, request).await
}

async fn connect(address: SocketAddr, from: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(format!("{from}:0").parse().expect("an address")).expect("a loopback address");
    socket.connect(address).await.expect("a connection")
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let mut part = [0; 8192];
    let reading = async {
        // Some end without a TLS goodbye.
        while let Ok(count @ 1..) = stream.read(&mut part).await {
            answer.extend_from_slice(&part[..count]);
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reading).await.expect("an answer in time");
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// Every header by which a visitor might forge an address, a host or a scheme.
pub fn forged() -> String {
    let addresses = ["X-Forwarded-For", "X-Real-IP", "True-Client-IP", "X_Forwarded_For"];
    let hosts = ["X-Forwarded-Host", "X-Forwarded-Server", "X-Forwarded-Prefix", "X-Forwarded-Port"];
    let mut text: String = addresses.iter().map(|name| format!("{name}: 6.6.6.6\r\n")).collect();
    text.extend(hosts.iter().map(|name| format!("{name}: evil.example\r\n")));
    text + "Forwarded: for=6.6.6.6;host=evil.example;proto=http\r\nX-Forwarded-Proto: http\r\n"
}

/// A request with the forged headers and more.
pub fn request(method: &str, path: &str, more: &str, body: &str) -> String {
    request_to(HOST, method, path, more, body)
}

/// The same to another host.
pub fn request_to(host: &str, method: &str, path: &str, more: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n{}{more}\r\n{body}",
        body.len(),
        forged()
    )
}

/// An origin that answers each request with its own head, as it came.
pub async fn echo() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.windows(4).any(|four| four == b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", head.len());
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.write_all(&head).await;
            });
        }
    });
    address
}

/// Takes any certificate: what is asked here is what comes through, not whom it is from.
#[derive(Debug)]
pub struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
