//! Mails through a real SMTP conversation.
use portalkeeper::api::MailAddress;
use portalkeeper::api::class::SmtpEncryption;
use portalkeeper::config::Secret;
use portalkeeper::http::shutdown::Shutdown;
use portalkeeper::mail::sink::Sink;
use portalkeeper::mail::{Mail, Mailer, SmtpOptions};

fn address(text: &str) -> MailAddress {
    MailAddress::parse(text).unwrap()
}

fn mail() -> Mail {
    Mail {
        from: address("reset@acme.example"),
        from_name: Some("Acme Zürich".into()),
        reply_to: Some(address("help@acme.example")),
        to: address("ann@home.example"),
        subject: "Set a new password".into(),
        text: "First line\n.leading dot\nhttps://reset.acme.example/r#abc\nü".into(),
        html: Some("<p>Hello</p>".into()),
    }
}

fn options(port: u16, encryption: SmtpEncryption) -> SmtpOptions {
    SmtpOptions {
        host: "127.0.0.1".into(),
        port,
        encryption,
        username: Some("reset@acme.example".into()),
        password: Some(Secret::new("smtp-secret-1")),
    }
}

#[tokio::test]
async fn a_mail_arrives_whole_and_is_marked_as_automatic() {
    let (_handle, shutdown) = Shutdown::new();
    let sink = Sink::start(shutdown).await.unwrap();
    let mailer = Mailer::new(options(sink.address().port(), SmtpEncryption::Plain)).unwrap();
    mailer.send(mail()).await.unwrap();
    let messages = sink.messages();
    assert_eq!(messages.len(), 1);
    let got = &messages[0];
    assert_eq!((got.from.as_str(), got.to.as_slice()), ("reset@acme.example", &["ann@home.example".to_owned()][..]));
    assert_eq!(got.subject, "Set a new password");
    assert_eq!(got.text.trim_end(), mail().text);
    assert_eq!(got.html.as_deref().map(str::trim_end), Some("<p>Hello</p>"));
    assert!(got.raw.contains("Auto-Submitted: auto-generated") && got.raw.contains("Reply-To: help@acme.example"));
    assert!(!got.raw.contains("smtp-secret-1"));
}

#[tokio::test]
async fn each_refusal_has_its_class_and_hides_the_password() {
    let (_handle, shutdown) = Shutdown::new();
    let sink = Sink::start(shutdown).await.unwrap();
    let mailer = Mailer::new(options(sink.address().port(), SmtpEncryption::Plain)).unwrap();
    for (code, text, reason) in [
        (550, "no such user smtp-secret-1", "MailRefused"),
        (451, "try later", "MailDeferred"),
        (535, "bad login", "MailLoginRefused"),
    ] {
        sink.refuse_next(code, text);
        let error = mailer.send(mail()).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
        assert!(!error.to_string().contains("smtp-secret-1"), "{error}");
    }
    assert!(sink.messages().is_empty());
}

#[tokio::test]
async fn a_server_without_tls_gets_nothing_where_tls_is_asked_for() {
    let (_handle, shutdown) = Shutdown::new();
    let sink = Sink::start(shutdown).await.unwrap();
    let mailer = Mailer::new(options(sink.address().port(), SmtpEncryption::StartTls)).unwrap();
    let error = mailer.send(mail()).await.unwrap_err();
    assert_eq!(error.reason(), "MailTlsFailed", "{error}");
    assert!(sink.messages().is_empty());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let port = crate::peers::free_port();
    let mailer = Mailer::new(options(port, SmtpEncryption::Plain)).unwrap();
    let error = mailer.send(mail()).await.unwrap_err();
    assert_eq!(error.reason(), "MailServerUnreachable");
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
}
