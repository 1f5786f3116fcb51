//! An SMTP server on loopback that keeps every mail instead of delivering it.
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::http::double::lock;
use crate::http::shutdown::Shutdown;

/// Mails kept; the oldest go first.
const KEPT: usize = 500;
/// Longest line and mail, in bytes.
const LONGEST_LINE: u64 = 4096;
const LARGEST_MAIL: usize = 4 << 20;
/// Longest wait for a command.
const PATIENCE: Duration = Duration::from_secs(60);

/// A mail as it came in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredMail {
    pub from: String,
    pub to: Vec<String>,
    pub subject: String,
    pub text: String,
    pub html: Option<String>,
    /// The `Date` header.
    pub time: String,
    pub raw: String,
}

#[derive(Default)]
struct State {
    mails: Vec<StoredMail>,
    /// Answer to the next mail's data instead of taking it.
    refusal: Option<(u16, String)>,
}

/// The running server. Cheap to clone.
#[derive(Clone)]
pub struct Sink {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Sink {
    /// Starts on a free loopback port; ends with `shutdown`.
    pub async fn start(shutdown: Shutdown) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let sink = Self { address: listener.local_addr()?, state: Arc::default() };
        let serving = sink.clone();
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = shutdown.wait() => return,
                };
                let Ok((stream, _)) = accepted else { continue };
                let (sink, shutdown) = (serving.clone(), shutdown.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        _ = sink.converse(stream) => {}
                        () = shutdown.wait() => {}
                    }
                });
            }
        });
        Ok(sink)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
    /// Every kept mail, oldest first.
    pub fn messages(&self) -> Vec<StoredMail> {
        lock(&self.state).mails.clone()
    }
    /// Answers the next mail with this code and text instead of taking it.
    pub fn refuse_next(&self, code: u16, text: &str) {
        lock(&self.state).refusal = Some((code, text.to_owned()));
    }
    pub fn snapshot(&self) -> Value {
        serde_json::to_value(&lock(&self.state).mails).unwrap_or_default()
    }
    pub fn restore(&self, state: Value) {
        if let Ok(mails) = serde_json::from_value(state) {
            lock(&self.state).mails = mails;
        }
    }

    fn keep(&self, from: &str, to: &[String], raw: &[u8]) {
        let parsed = mail_parser::MessageParser::default().parse(raw);
        let text = |part: Option<std::borrow::Cow<'_, str>>| part.map(|text| text.replace("\r\n", "\n"));
        let mail = StoredMail {
            from: from.to_owned(),
            to: to.to_vec(),
            subject: parsed.as_ref().and_then(|mail| mail.subject()).unwrap_or_default().to_owned(),
            text: text(parsed.as_ref().and_then(|mail| mail.body_text(0))).unwrap_or_default(),
            html: parsed.as_ref().filter(|mail| mail.html_body_count() > 0 && mail.text_body_count() > 0).and_then(
                |mail| {
                    let part = mail.html_part(0)?;
                    part.is_text_html().then(|| mail.body_html(0).map(|html| html.into_owned()))?
                },
            ),
            time: parsed.as_ref().and_then(|mail| mail.date()).map(|date| date.to_rfc3339()).unwrap_or_default(),
            raw: String::from_utf8_lossy(raw).into_owned(),
        };
        let mut state = lock(&self.state);
        state.mails.push(mail);
        let surplus = state.mails.len().saturating_sub(KEPT);
        state.mails.drain(..surplus);
    }

    async fn converse(&self, stream: TcpStream) -> std::io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let mut from = String::new();
        let mut to: Vec<String> = Vec::new();
        writer.write_all(b"220 sandbox ESMTP\r\n").await?;
        loop {
            let Some(line) = line(&mut reader).await? else { return Ok(()) };
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            let verb = text.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            let answer = match verb.as_str() {
                "EHLO" => "250-sandbox\r\n250-8BITMIME\r\n250-AUTH PLAIN LOGIN\r\n250 SIZE 4194304".to_owned(),
                "HELO" | "NOOP" => "250 OK".to_owned(),
                "RSET" => {
                    from.clear();
                    to.clear();
                    "250 OK".to_owned()
                }
                "AUTH" if text.to_ascii_uppercase().starts_with("AUTH LOGIN") => {
                    for prompt in [&b"334 VXNlcm5hbWU6\r\n"[..], b"334 UGFzc3dvcmQ6\r\n"] {
                        writer.write_all(prompt).await?;
                        if self::line(&mut reader).await?.is_none() {
                            return Ok(());
                        }
                    }
                    "235 OK".to_owned()
                }
                "AUTH" => "235 OK".to_owned(),
                "MAIL" => {
                    from = address(&text);
                    "250 OK".to_owned()
                }
                "RCPT" => {
                    to.push(address(&text));
                    "250 OK".to_owned()
                }
                "DATA" if to.is_empty() => "503 no recipient".to_owned(),
                "DATA" => {
                    writer.write_all(b"354 go on\r\n").await?;
                    let Some(raw) = data(&mut reader).await? else { return Ok(()) };
                    let refusal = lock(&self.state).refusal.take();
                    let answer = match refusal {
                        Some((code, text)) => format!("{code} {text}"),
                        None => {
                            self.keep(&from, &to, &raw);
                            "250 kept".to_owned()
                        }
                    };
                    from.clear();
                    to.clear();
                    answer
                }
                "QUIT" => {
                    writer.write_all(b"221 bye\r\n").await?;
                    return Ok(());
                }
                _ => "502 not known here".to_owned(),
            };
            writer.write_all(format!("{answer}\r\n").as_bytes()).await?;
        }
    }
}

/// What stands between `<` and `>`.
fn address(line: &str) -> String {
    line.split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'))
        .map(|(address, _)| address.to_owned())
        .unwrap_or_default()
}

/// One line with its end; `None` when the client is gone, too slow or sends too long a line.
async fn line<R: AsyncBufReadExt + Unpin>(reader: &mut R) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut bounded = reader.take(LONGEST_LINE);
    match tokio::time::timeout(PATIENCE, bounded.read_until(b'\n', &mut line)).await {
        Ok(Ok(1..)) if line.ends_with(b"\n") => Ok(Some(line)),
        Ok(Err(error)) => Err(error),
        _ => Ok(None),
    }
}

/// The mail up to the lonely dot, with doubled dots made single.
async fn data<R: AsyncBufReadExt + Unpin>(reader: &mut R) -> std::io::Result<Option<Vec<u8>>> {
    let mut raw = Vec::new();
    loop {
        let Some(line) = line(reader).await? else { return Ok(None) };
        if line == b".\r\n" || line == b".\n" {
            return Ok(Some(raw));
        }
        raw.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        if raw.len() > LARGEST_MAIL {
            return Ok(None);
        }
    }
}
