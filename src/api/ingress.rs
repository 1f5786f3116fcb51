//! The proxy of a `PortalClass` that is an Ingress controller or a Gateway.
use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fits;
use crate::config::rules;

/// An Ingress per portal, in the namespace of the Service that leads to the pages.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!(has(self.tlsSecret) && has(self.issuer))", "tlsSecret and issuer exclude each other"))]
#[x_kube(validation = (
    "!has(self.gateway) || !(has(self.className) || has(self.tlsSecret) || has(self.issuer) || has(self.annotations))",
    "with gateway, the gateway sees to class, TLS and annotations"
))]
pub struct IngressSettings {
    /// Namespace of the Service and of what is made; without it, the controller's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = rules::LABEL.longest))]
    #[x_kube(validation = fits(&rules::LABEL))]
    pub namespace: Option<String>,
    #[serde(default = "own_service")]
    #[schemars(length(min = 1, max = rules::LABEL.longest))]
    #[x_kube(validation = fits(&rules::LABEL))]
    pub service: String,
    #[serde(default = "own_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// `ingressClassName`; without it, the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = rules::SUBDOMAIN.longest))]
    #[x_kube(validation = fits(&rules::SUBDOMAIN))]
    pub class_name: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Secret with the certificate, in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = rules::SUBDOMAIN.longest))]
    #[x_kube(validation = fits(&rules::SUBDOMAIN))]
    pub tls_secret: Option<String>,
    /// Issuer of cert-manager that makes a Secret for each portal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<IssuerRef>,
    /// Makes `HTTPRoute`s for this Gateway instead, where the cluster has the Gateway API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayRef>,
}

fn own_service() -> String {
    "portalkeeper".to_owned()
}
fn own_port() -> u16 {
    5000
}

/// An issuer of cert-manager.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRef {
    #[schemars(length(min = 1, max = rules::SUBDOMAIN.longest))]
    #[x_kube(validation = fits(&rules::SUBDOMAIN))]
    pub name: String,
    #[serde(default)]
    pub kind: IssuerKind,
}

/// Kinds of cert-manager's issuers.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IssuerKind {
    #[default]
    ClusterIssuer,
    Issuer,
}

/// A Gateway.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRef {
    #[schemars(length(min = 1, max = rules::SUBDOMAIN.longest))]
    #[x_kube(validation = fits(&rules::SUBDOMAIN))]
    pub name: String,
    /// Without it, the namespace of the routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = rules::LABEL.longest))]
    #[x_kube(validation = fits(&rules::LABEL))]
    pub namespace: Option<String>,
    /// One listener of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = rules::SUBDOMAIN.longest))]
    #[x_kube(validation = fits(&rules::SUBDOMAIN))]
    pub section_name: Option<String>,
}
