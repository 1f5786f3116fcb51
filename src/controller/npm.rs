//! From a class to the options of its Nginx Proxy Manager, and the store as the book of what was ordered there.
use std::sync::Arc;

use async_trait::async_trait;
use url::Url;

use super::classes::{ResolvedClass, fingerprint};
use crate::api::proxy::NpmSettings;
use crate::backends::cloudflare_api::Api;
use crate::backends::npm::book::{Order, OrderBook, Refusal};
use crate::backends::npm::certificate::{Choice, LetsEncrypt, Source};
use crate::backends::npm::{Forward, Gate, NpmOptions, Pace};
use crate::backends::origin_ca::{CloudflareOriginCa, OriginCa};
use crate::config::Secret;
use crate::store::{NpmOrder, NpmRefusal, Store};

/// What tells this worker from others: settings, scheme and secrets. Another certificate source is another worker;
/// the gate keeps both from writing at once.
pub fn key(class: &ResolvedClass, settings: &NpmSettings) -> String {
    let exposed = |secret: &Option<Secret>| secret.as_ref().map_or(String::new(), |s| s.expose().to_owned());
    let cloudflare = class.spec.cloudflare.as_ref().and_then(|c| c.api_url.as_deref()).unwrap_or_default();
    fingerprint(&[
        "npm",
        &serde_json::to_string(settings).unwrap_or_default(),
        cloudflare,
        &exposed(&class.secrets.npm_identity),
        &exposed(&class.secrets.npm_password),
        &exposed(&class.secrets.npm_dns_token),
        &exposed(&class.secrets.cf_api_token),
    ])
}

/// The options; `cloudflare` is the class's account, if it has one.
pub fn options(
    class: &ResolvedClass,
    settings: &NpmSettings,
    api_url: Url,
    cloudflare: Option<Api>,
    gate: Gate,
    store: Store,
) -> NpmOptions {
    let secret = |secret: &Option<Secret>| secret.clone().unwrap_or_default();
    let identity = secret(&class.secrets.npm_identity);
    let certificate = &settings.certificate;
    let certificates = if let Some(existing) = &certificate.existing {
        Source::Existing(match (existing.id, &existing.name) {
            (Some(id), _) => Choice::Id(id.into()),
            (None, name) => Choice::Name(name.clone().unwrap_or_default()),
        })
    } else if certificate.origin_ca.is_some() {
        Source::OriginCa
    } else if certificate.none.is_some() {
        Source::None
    } else {
        let settings = certificate.lets_encrypt.clone().unwrap_or_default();
        Source::LetsEncrypt(LetsEncrypt {
            dns_token: secret(&class.secrets.npm_dns_token),
            email: Some(settings.email.map_or_else(|| identity.clone(), Secret::new)),
            propagation_seconds: settings.propagation_seconds,
        })
    };
    let origin_ca = match (&certificates, cloudflare) {
        (Source::OriginCa, Some(api)) => Some(Arc::new(CloudflareOriginCa::new(&api)) as Arc<dyn OriginCa>),
        _ => None,
    };
    NpmOptions {
        api_url,
        verify_tls: settings.verify_tls,
        identity,
        secret: secret(&class.secrets.npm_password),
        forward: Forward {
            scheme: settings.forward_scheme.as_str().to_owned(),
            host: settings.forward_host.clone(),
            port: settings.forward_port,
        },
        force_https: settings.force_https,
        certificates,
        origin_ca,
        gate,
        book: Arc::new(StoreBook(store)),
        pace: Pace::default(),
    }
}

/// The store's table of orders.
struct StoreBook(Store);

fn kept(order: &Order) -> NpmOrder {
    let Order { host, mark, after, certificate, at } = order.clone();
    NpmOrder { host, mark, after, certificate, at }
}

#[async_trait]
impl OrderBook for StoreBook {
    async fn orders(&self, instance: &str) -> Result<Vec<Order>, String> {
        let orders = self.0.npm_orders(instance).await.map_err(|error| error.to_string())?;
        let order = |NpmOrder { host, mark, after, certificate, at }| Order { host, mark, after, certificate, at };
        Ok(orders.into_iter().map(order).collect())
    }
    async fn put(&self, instance: &str, order: &Order) -> Result<(), String> {
        self.0.npm_order_put(instance, &kept(order)).await.map_err(|error| error.to_string())
    }
    async fn remove(&self, instance: &str, order: &Order) -> Result<(), String> {
        self.0.npm_order_remove(instance, &kept(order)).await.map_err(|error| error.to_string())
    }
    async fn refusal(&self, instance: &str, host: &str) -> Result<Option<Refusal>, String> {
        let found = self.0.npm_refusal(instance, host).await.map_err(|error| error.to_string())?;
        Ok(found.map(|NpmRefusal { host, reason, message, at, pause }| Refusal { host, reason, message, at, pause }))
    }
    async fn refuse(&self, instance: &str, refusal: &Refusal) -> Result<(), String> {
        let Refusal { host, reason, message, at, pause } = refusal.clone();
        let refusal = NpmRefusal { host, reason, message, at, pause };
        self.0.npm_refuse(instance, &refusal).await.map_err(|error| error.to_string())
    }
    async fn forgive(&self, instance: &str, host: &str) -> Result<(), String> {
        self.0.npm_forgive(instance, host).await.map_err(|error| error.to_string())
    }
}
