//! The sandbox's journey in a real browser, with screenshots in `target/screenshots`.
use std::path::Path;
use std::time::Duration;

use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

use crate::peers::{Running, chromedriver, free_port};
use crate::process::Sandbox;
use crate::world::raw;

const PATIENCE: Duration = Duration::from_secs(20);
const WIDTHS: [(&str, u64, u64); 2] = [("phone", 360, 740), ("desktop", 1280, 800)];

struct Browser {
    client: Client,
    driver: u16,
    session: String,
    _driver: Running,
}

impl Browser {
    async fn start(home: &Path) -> Option<Self> {
        let peer = chromedriver()?;
        let driver = free_port();
        let running = Running::start(&peer.program, home, &[&format!("--port={driver}")]);
        let arguments =
            ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"];
        let capabilities = json!({"goog:chromeOptions": {"args": arguments, "binary": "/usr/bin/chromium"}});
        let Value::Object(capabilities) = capabilities else { unreachable!("an object") };
        let end = tokio::time::Instant::now() + PATIENCE;
        let client = loop {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            match builder.capabilities(capabilities.clone()).connect(&format!("http://127.0.0.1:{driver}")).await {
                Ok(client) => break client,
                Err(error) if tokio::time::Instant::now() > end => panic!("no browser: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        let session = client.session_id().await.unwrap().unwrap();
        Some(Self { client, driver, session, _driver: running })
    }

    /// A command of the browser's own protocol.
    async fn own(&self, command: &str, parameters: Value) {
        let body = json!({"cmd": command, "params": parameters}).to_string();
        let path = format!("/session/{}/goog/cdp/execute", self.session);
        let address = ([127, 0, 0, 1], self.driver).into();
        let answer = raw(address, "POST", "127.0.0.1", &path, &[("content-type", "application/json")], &body).await;
        assert_eq!(answer.status, 200, "{command}: {}", answer.body);
    }

    /// Pictures of the page: phone and desktop, light and dark. No width may need sideways scrolling.
    async fn look(&self, name: &str) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        for (device, width, height) in WIDTHS {
            let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
            self.own("Emulation.setDeviceMetricsOverride", size).await;
            for scheme in ["light", "dark"] {
                let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
                self.own("Emulation.setEmulatedMedia", features).await;
                let picture = self.client.screenshot().await.unwrap();
                std::fs::write(folder.join(format!("{name}-{device}-{scheme}.png")), picture).unwrap();
            }
            let script = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
            let over = self.client.execute(script, Vec::new()).await.unwrap();
            assert_eq!(over, json!(0), "{name} is wider than {width} px");
        }
        self.own("Emulation.clearDeviceMetricsOverride", json!({})).await;
    }

    async fn open(&self, address: &str) {
        self.client.goto(address).await.unwrap();
    }

    async fn heading(&self) -> String {
        self.client.wait().at_most(PATIENCE).for_element(Locator::Css("h1")).await.unwrap().text().await.unwrap()
    }

    /// Waits for a page with this heading.
    async fn until(&self, heading: &str) {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let now = match self.client.find(Locator::Css("h1")).await {
                Ok(found) => found.text().await.unwrap_or_default(),
                Err(_) => String::new(),
            };
            if now == heading {
                return;
            }
            assert!(tokio::time::Instant::now() < end, "the page says {now:?} and not {heading:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn fill(&self, id: &str, text: &str) {
        let field = self.client.find(Locator::Id(id)).await.unwrap();
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    async fn press(&self, button: &str) {
        self.client.find(Locator::Css(button)).await.unwrap().click().await.unwrap();
    }

    /// Reloads the inbox until it holds this many mails.
    async fn inbox(&self, sandbox: &Sandbox, count: usize) {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            self.open(&format!("http://{}/inbox", sandbox.simulators)).await;
            if self.client.find_all(Locator::Css("article")).await.unwrap().len() == count {
                return;
            }
            assert!(tokio::time::Instant::now() < end, "{count} mails did not come");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_password_is_reset_in_a_browser() {
    let folder = tempfile::tempdir().unwrap();
    let Some(browser) = Browser::start(folder.path()).await else { return };
    let sandbox = Sandbox::start(folder.path());
    let page = format!("http://reset.acme.localhost:{}/", sandbox.pages.port());
    // given the portal's page with its title and logo
    let end = tokio::time::Instant::now() + PATIENCE;
    while raw(sandbox.pages, "GET", "reset.acme.localhost", "/", &[], "").await.status != 200 {
        assert!(tokio::time::Instant::now() < end, "the page is not served");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    browser.open(&page).await;
    assert_eq!(browser.heading().await, "Forgot your password?");
    assert_eq!(browser.client.title().await.unwrap(), "Forgot your password? – Acme Mail");
    let wide = "return document.querySelector('.brand img').naturalWidth";
    assert_eq!(browser.client.execute(wide, Vec::new()).await.unwrap(), json!(220));
    browser.look("1-start").await;
    // an address of another domain is told at once
    browser.fill("mailbox", "ann@elsewhere.example").await;
    browser.press("button.main").await;
    browser.client.wait().at_most(PATIENCE).for_element(Locator::Id("problem")).await.unwrap();
    browser.look("2-wrong-domain").await;
    // when a link is asked for
    browser.fill("mailbox", "ann@acme.localhost").await;
    browser.press("button.main").await;
    browser.until("Look into your mail").await;
    browser.look("3-sent").await;
    // then it is in the inbox, for the recovery address
    browser.inbox(&sandbox, 1).await;
    let mail = browser.client.find(Locator::Css("article")).await.unwrap().text().await.unwrap();
    assert!(
        mail.contains("ann.private@example.net") && mail.contains("Set a new password for ann@acme.localhost"),
        "{mail}"
    );
    browser.look("4-inbox").await;
    let link = browser.client.find(Locator::Css("article a[href*='/r#']")).await.unwrap();
    let address = link.attr("href").await.unwrap().unwrap();
    // when the link is opened, then its secret leaves the address bar and no code need be typed
    browser.open(&address).await;
    browser.until("Choose a new password").await;
    assert_eq!(browser.client.current_url().await.unwrap().as_str(), format!("{page}r"));
    let code = browser.client.find(Locator::Id("code")).await.unwrap();
    assert!(!code.is_displayed().await.unwrap());
    browser.look("5-choose").await;
    // a weak password is refused with what it needs, and the link is still good
    browser.fill("password", "short").await;
    browser.press("button.main").await;
    browser.client.wait().at_most(PATIENCE).for_element(Locator::Id("problem")).await.unwrap();
    browser.look("6-too-short").await;
    browser.fill("password", "Correct-horse-7").await;
    browser.press("#show").await;
    let kind = browser.client.find(Locator::Id("password")).await.unwrap().prop("type").await.unwrap();
    assert_eq!(kind.as_deref(), Some("text"));
    browser.press("button.main").await;
    browser.until("Your password is changed").await;
    browser.look("7-changed").await;
    // then notices are mailed to both addresses
    browser.inbox(&sandbox, 3).await;
    // and the link is dead
    browser.open("about:blank").await;
    browser.open(&address).await;
    browser.until("Choose a new password").await;
    browser.fill("password", "Another-horse-8").await;
    browser.press("button.main").await;
    browser.until("This link does not work any more").await;
    browser.look("8-dead-link").await;
    // the other portal is dark, and the sandbox's own pages can be looked at
    browser.open(&format!("http://password.globex.localhost:{}/", sandbox.pages.port())).await;
    browser.until("Forgot your password?").await;
    browser.look("9-globex").await;
    for (name, path) in [("overview", "/"), ("records", "/cloudflare/records/ui"), ("mailboxes", "/mxroute/ui")] {
        browser.open(&format!("http://{}{path}", sandbox.simulators)).await;
        browser.look(&format!("10-{name}")).await;
    }
    let mailboxes = browser.client.source().await.unwrap();
    assert!(!mailboxes.contains("Correct-horse-7"), "passwords are not shown");
    // without scripts the code can be typed
    browser.own("Emulation.setScriptExecutionDisabled", json!({"value": true})).await;
    browser.open(&format!("{page}r")).await;
    assert!(browser.client.find(Locator::Id("code")).await.unwrap().is_displayed().await.unwrap());
    browser.client.clone().close().await.unwrap();
    assert_eq!(sandbox.interrupt(), 0);
}
