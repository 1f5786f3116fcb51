//! How the commands beside a running program reach its API.
use std::path::Path;

use kube::config::{KubeConfigOptions, Kubeconfig};

use super::daemon::AppError;
use super::data::DataError;

/// A client, and where it goes.
pub struct Connection {
    pub client: kube::Client,
    pub address: String,
}

/// By the given kubeconfig, else by that of the data directory, else by the usual places. Where somebody named the
/// directory, no other place will do: it could be another program's.
pub async fn connect(data: &Path, named: bool, kubeconfig: Option<&Path>) -> Result<Connection, AppError> {
    crate::http::install_crypto_provider();
    let no_cluster = |error: &dyn std::fmt::Display| AppError::NoCluster(error.to_string());
    let own = data.join("kubeconfig");
    if named && kubeconfig.is_none() && !own.exists() {
        let directory = data.to_owned();
        let missing = if data.exists() { DataError::NoKubeconfig } else { DataError::Missing };
        return Err(missing(directory).into());
    }
    let config = match kubeconfig.or(Some(own.as_path()).filter(|own| own.exists())) {
        Some(path) => {
            let read = Kubeconfig::read_from(path).map_err(|error| no_cluster(&error))?;
            kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
                .await
                .map_err(|error| no_cluster(&error))?
        }
        None => kube::Config::infer().await.map_err(|error| no_cluster(&error))?,
    };
    let address = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    let client = kube::Client::try_from(config).map_err(|error| no_cluster(&error))?;
    Ok(Connection { client, address })
}
