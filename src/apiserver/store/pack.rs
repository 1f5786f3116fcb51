//! Objects as compressed JSON text. Objects of one resource resemble each other, so a recent one is the dictionary for
//! those that follow; a portal takes a fifth of its text that way.
use std::borrow::Cow;
use std::sync::Arc;

/// Shorter texts are kept as they are.
const WORTH_PACKING: usize = 256;
/// Longest text that serves as a dictionary.
const LONGEST_DICTIONARY: usize = 16 * 1024;
/// Texts packed before the dictionary may be changed again, so that texts that resemble nothing do not each bring one
/// along.
const DICTIONARY_LIFE: u32 = 64;

/// A text, packed or not.
#[derive(Debug, Clone)]
pub enum Packed {
    Plain(Box<[u8]>),
    Lz4 { dictionary: Arc<[u8]>, bytes: Box<[u8]>, length: u32 },
}

impl Packed {
    /// The text as it was.
    pub fn text(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Plain(text) => Cow::Borrowed(text),
            Self::Lz4 { dictionary, bytes, length } => Cow::Owned(
                lz4_flex::block::decompress_with_dict(bytes, *length as usize, dictionary)
                    .unwrap_or_else(|error| unreachable!("packed by us, so it can be unpacked: {error}")),
            ),
        }
    }
    /// Bytes that it takes, its share of the dictionary aside.
    pub fn size(&self) -> usize {
        match self {
            Self::Plain(text) => text.len(),
            Self::Lz4 { bytes, .. } => bytes.len(),
        }
    }
}

/// Packs the texts of one resource.
#[derive(Debug, Default)]
pub struct Packer {
    dictionary: Option<Arc<[u8]>>,
    /// Texts packed with it.
    used: u32,
}

impl Packer {
    pub fn pack(&mut self, text: &[u8]) -> Packed {
        let Ok(length) = u32::try_from(text.len()) else { return Packed::Plain(text.into()) };
        if text.len() < WORTH_PACKING {
            return Packed::Plain(text.into());
        }
        let dictionary = self.dictionary.get_or_insert_with(|| dictionary_of(text));
        let bytes = lz4_flex::block::compress_with_dict(text, dictionary);
        let dictionary = Arc::clone(dictionary);
        self.used = self.used.saturating_add(1);
        // Objects have changed since: the newest one resembles the next ones better.
        if bytes.len() > text.len() / 3 && self.used > DICTIONARY_LIFE && text.len() <= LONGEST_DICTIONARY {
            self.dictionary = Some(text.into());
            self.used = 0;
        }
        if bytes.len() >= text.len() {
            return Packed::Plain(text.into());
        }
        Packed::Lz4 { dictionary, bytes: bytes.into_boxed_slice(), length }
    }
}

fn dictionary_of(text: &[u8]) -> Arc<[u8]> {
    text[..text.len().min(LONGEST_DICTIONARY)].into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_that_resemble_each_other_take_a_fraction() {
        let text = |n: usize| {
            let fields: Vec<String> = (0..60).map(|i| format!("\"field number {i}\":\"some value {i}\"")).collect();
            format!("{{\"name\":\"portal-{n}\",{}}}", fields.join(",")).into_bytes()
        };
        let mut packer = Packer::default();
        for n in 0..500 {
            let packed = packer.pack(&text(n));
            assert_eq!(packed.text(), text(n));
            assert!(packed.size() < text(n).len() / 8, "{}", packed.size());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn any_texts_come_back_as_they_were(
            texts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 1..120),
            big in proptest::collection::vec(0_u8..4, 20_000..40_000),
        ) {
            let mut packer = Packer::default();
            for text in texts.iter().chain([&big, &big]).chain(&texts) {
                let packed = packer.pack(text);
                prop_assert!(packed.size() <= text.len());
                prop_assert!(packed.text().as_ref() == &text[..]);
            }
        }
    }
}
