//! What stops a look at a portal altogether; what concerns only the portal becomes a condition instead.
use crate::store::StoreError;

/// A failure of the Kubernetes API or of the store.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    #[error("the Kubernetes API refused or failed: {0}")]
    Api(#[from] Box<kube::Error>),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "the API does not take the PortalClass \"environment\" that the variables make: {0}; correct the variable, or \
         apply the definitions of this version (`portalkeeper crds`)"
    )]
    ClassRefused(String),
    #[error("the custom resource definitions are not installed: {0}")]
    NotInstalled(String),
}

impl ControllerError {
    /// Stable CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Api(_) => "ApiFailed",
            Self::Store(error) => error.reason(),
            Self::ClassRefused(_) => "EnvironmentClassRefused",
            Self::NotInstalled(_) => "DefinitionsMissing",
        }
    }
}

impl From<kube::Error> for ControllerError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

/// Whether the API said this code.
pub fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}
