//! Files with certificates of the Origin CA: one per host, beside the file with its route, because the key in it is not
//! for everybody who may read routes.
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::folder::{File, Folder};
use super::fragment::{self, entry_name, short_hash};
use crate::api::HostName;
use crate::backends::BackendError;
use crate::backends::origin_ca::Signed;
use crate::backends::origin_ca::kept::{Own, State, judge};
use crate::config::Secret;
use crate::plan::{Mark, Ownership};

/// How a file's name ends. Files are read by their last ending.
const ENDING: &str = ".tls.yml";
/// Begins the line that names the certificate at Cloudflare.
const ID: &str = "# cloudflare-origin-ca ";
const NOTE: &str = "# Made by Portalkeeper, with a private key; edits are undone.\n";
/// Read by Traefik's group, and by nobody else.
const MODE: u32 = 0o640;

#[derive(Serialize, Deserialize)]
struct Document {
    tls: Tls,
}

#[derive(Serialize, Deserialize)]
struct Tls {
    certificates: Vec<Pair>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pair {
    cert_file: String,
    key_file: String,
}

/// The file of a host's certificate.
pub fn file_name(mark: &Mark, host: &str) -> String {
    format!("{}{ENDING}", entry_name(mark, host))
}

fn header(mark: &Mark, host: &str) -> String {
    format!("# {mark} {host}\n")
}

/// Mark and host of a file of ours, by name and first line together.
fn owner(name: &str, text: &str) -> Option<(Mark, String)> {
    let (mark, host) = text.lines().next()?.strip_prefix("# ")?.rsplit_once(' ')?;
    let Ownership::Marked(mark) = Mark::from_text(mark) else { return None };
    (name == file_name(&mark, host)).then(|| (mark, host.to_owned()))
}

/// Whether the file holds a certificate of ours, whatever state it is in.
pub fn is_ours(file: &File) -> bool {
    owner(&file.name, &file.text).is_some()
}

fn read(name: &str, text: &str, now: Timestamp) -> Option<Own> {
    let (mark, host) = owner(name, text)?;
    let id = text.lines().find_map(|line| line.strip_prefix(ID)).map(str::to_owned);
    // The reader's words may quote the key.
    let found = serde_saphyr::from_str::<Document>(text).ok().and_then(|document| only(document.tls.certificates));
    let (certificate, key) = found.map(|pair| (pair.cert_file, pair.key_file)).unwrap_or_default();
    let signed = Signed { certificate: Secret::new(certificate), key: Secret::new(key), id };
    let state = match signed.key.is_empty() {
        true => State::Unusable(format!("{name} was damaged")),
        false => judge(signed.certificate.expose(), signed.key.expose(), &host, now),
    };
    Some(Own { mark, host, signed, state })
}

fn only(mut pairs: Vec<Pair>) -> Option<Pair> {
    pairs.pop().filter(|_| pairs.is_empty())
}

/// Those of ours among the files.
pub fn ours(files: &[File], now: Timestamp) -> Vec<Own> {
    let named = files.iter().filter(|file| file.name.ends_with(ENDING));
    named.filter_map(|file| read(&file.name, &file.text, now)).collect()
}

/// Writes the host's certificate. Errors: somebody else has a file of that name.
pub fn write(folder: &Folder, mark: &Mark, host: &HostName, signed: &Signed) -> Result<(), BackendError> {
    let name = file_name(mark, host.as_str());
    if let Some(text) = folder.read(&name)?
        && owner(&name, &text).is_none()
    {
        return Err(fragment::not_ours(&name, &header(mark, host.as_str())));
    }
    folder.replace_as(&name, &text(&header(mark, host.as_str()), signed)?, MODE)
}

fn text(header: &str, signed: &Signed) -> Result<String, BackendError> {
    let pair = Pair { cert_file: signed.certificate.expose().to_owned(), key_file: signed.key.expose().to_owned() };
    let body = serde_saphyr::to_string(&Document { tls: Tls { certificates: vec![pair] } });
    let body = body.map_err(|error| fragment::not_rendered(&error.to_string()))?;
    let id = signed.id.as_ref().filter(|id| id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
    let id = id.map(|id| format!("{ID}{id}\n")).unwrap_or_default();
    let text = format!("{header}{id}{NOTE}{body}");
    // Traefik runs each file through Go's templates.
    if text.contains("{{") {
        return Err(fragment::not_rendered("a template would be written"));
    }
    let same = |back: Document| {
        let fits = |pair: &Pair| pair.cert_file == signed.certificate.expose() && pair.key_file == signed.key.expose();
        only(back.tls.certificates).as_ref().is_some_and(fits)
    };
    match serde_saphyr::from_str::<Document>(&text).map(same) {
        Ok(true) => Ok(text),
        _ => Err(fragment::not_rendered("the certificate would read back as something else")),
    }
}

/// Removes the host's certificate, if it is still ours; gives its id at Cloudflare.
pub fn remove(folder: &Folder, mark: &Mark, host: &str) -> Result<Option<String>, BackendError> {
    let name = file_name(mark, host);
    let Some(own) = folder.read(&name)?.and_then(|text| read(&name, &text, Timestamp::MIN)) else { return Ok(None) };
    folder.remove(&name)?;
    Ok(own.signed.id)
}

/// Leaves the certificate where it is, under a name that is not ours.
pub fn release(folder: &Folder, mark: &Mark, host: &str) -> Result<(), BackendError> {
    let name = file_name(mark, host);
    let Some(text) = folder.read(&name)?.filter(|text| owner(&name, text).is_some()) else { return Ok(()) };
    let bare: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let free = format!("portal-{}{ENDING}", short_hash(host));
    folder.replace_as(&free, &format!("{}\n", bare.join("\n")), MODE)?;
    folder.remove(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PortalKey;
    use crate::plan::InstallationId;

    const HOST: &str = "reset.acme.example";

    fn mark() -> Mark {
        let installation = InstallationId::parse("0123456789abcdef").unwrap();
        Mark::new(&installation, &PortalKey { namespace: "mail".into(), name: "acme".into() })
    }

    #[test]
    fn a_certificate_reads_as_written_and_only_with_our_name_and_first_line() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![HOST.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2030, 6, 15);
        let certificate = params.self_signed(&key).unwrap().pem();
        let (certificate, key) = (Secret::new(certificate), Secret::new(key.serialize_pem()));
        let signed = Signed { certificate, key, id: Some("4711".to_owned()) };
        let text = text(&header(&mark(), HOST), &signed).unwrap();
        let name = file_name(&mark(), HOST);
        let own = Own { mark: mark(), host: HOST.to_owned(), signed, state: State::Usable };
        assert_eq!(read(&name, &text, Timestamp::UNIX_EPOCH), Some(own));
        for (name, text) in [
            (name.replace(".tls", ""), text.clone()),
            (file_name(&mark(), "reset.globex.example"), text.clone()),
            (name.clone(), text.replace("portalkeeper/v1", "portalkeeper/v2")),
        ] {
            assert_eq!(read(&name, &text, Timestamp::UNIX_EPOCH), None, "{name}");
        }
        let damaged = text.replace("keyFile", "keyfile");
        let Some(Own { state: State::Unusable(words), .. }) = read(&name, &damaged, Timestamp::UNIX_EPOCH) else {
            panic!("{damaged}")
        };
        assert_eq!(words, format!("{name} was damaged"), "no part of the key is in it");
    }
}
