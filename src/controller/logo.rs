//! Logos from ConfigMaps. Pure.
use k8s_openapi::api::core::v1::ConfigMap;

/// Largest logo, in bytes.
pub const MAXIMUM: usize = 512 * 1024;

/// A picture whose kind was told from its own bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    pub bytes: Vec<u8>,
    pub content_type: &'static str,
}

/// Takes the picture out of `binaryData` or `data`. The error is words for the portal's owner.
pub fn picture(object: Option<&ConfigMap>, name: &str, key: &str) -> Result<Picture, String> {
    let object = object.ok_or_else(|| format!("ConfigMap {name:?} does not exist"))?;
    let binary = object.binary_data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
    let text = object.data.as_ref().and_then(|data| data.get(key)).map(|text| text.as_bytes());
    let bytes = binary.or(text).ok_or_else(|| format!("ConfigMap {name:?} has no key {key:?}"))?;
    if bytes.len() > MAXIMUM {
        return Err(format!("key {key:?} of ConfigMap {name:?} is larger than 512 KiB"));
    }
    let content_type =
        sniff(bytes).ok_or_else(|| format!("key {key:?} of ConfigMap {name:?} is neither PNG, JPEG nor WebP"))?;
    Ok(Picture { bytes: bytes.to_vec(), content_type })
}

/// Media type by the first bytes; what a ConfigMap or its key claims does not count.
fn sniff(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        Some("image/png")
    } else if bytes.starts_with(b"\xff\xd8\xff") {
        Some("image/jpeg")
    } else if bytes.len() >= 12 && bytes.starts_with(b"RIFF") && &bytes[8..12] == b"WEBP" {
        Some("image/webp")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn with(bytes: &[u8]) -> ConfigMap {
        let binary_data = Some([("logo".to_owned(), ByteString(bytes.to_vec()))].into());
        ConfigMap { binary_data, ..Default::default() }
    }

    #[test]
    fn pictures_are_known_by_their_bytes() {
        let kind = |bytes: &[u8]| picture(Some(&with(bytes)), "brand", "logo").map(|p| p.content_type);
        assert_eq!(kind(b"\x89PNG\r\n\x1a\nrest").unwrap(), "image/png");
        assert_eq!(kind(b"\xff\xd8\xff\xe0").unwrap(), "image/jpeg");
        assert_eq!(kind(b"RIFF\0\0\0\0WEBPVP8 ").unwrap(), "image/webp");
        for bytes in [&b"<svg onload=alert(1)>"[..], b"GIF89a", b""] {
            assert_eq!(kind(bytes).unwrap_err(), "key \"logo\" of ConfigMap \"brand\" is neither PNG, JPEG nor WebP");
        }
        let huge = [&b"\xff\xd8\xff"[..], &vec![0; MAXIMUM]].concat();
        assert_eq!(kind(&huge).unwrap_err(), "key \"logo\" of ConfigMap \"brand\" is larger than 512 KiB");
    }

    #[test]
    fn a_missing_map_or_key_is_named() {
        assert_eq!(picture(None, "brand", "logo").unwrap_err(), "ConfigMap \"brand\" does not exist");
        assert_eq!(picture(Some(&with(b"")), "brand", "x").unwrap_err(), "ConfigMap \"brand\" has no key \"x\"");
    }
}
