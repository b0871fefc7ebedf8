//! Keys of encrypted archives: P-256, the public one as a line of base64, the private one as PKCS#8 in PEM.
//!
//! Holds: a key that was read is a point of the curve, and a pair that is made can be read by the predecessor.
//! Does not: keep a private key in any form that prints.

use std::fmt;

use aws_lc_rs::agreement::{self, ECDH_P256, ParsedPublicKey, UnparsedPublicKey};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::error::ArchiveError;
use crate::env::{Entropy, random_bytes};

/// Length of an uncompressed point, in bytes.
pub(super) const POINT_SIZE: usize = 65;

/// Characters of a line of PEM.
const PEM_LINE: usize = 64;

/// Whom an archive is encrypted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey([u8; POINT_SIZE]);

impl PublicKey {
    /// Reads a public key file: one line of base64.
    ///
    /// # Errors
    /// If it is not an uncompressed point of P-256.
    pub fn decode(text: &str) -> Result<Self, ArchiveError> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| key("a public key is one line of base64"))?;
        let point = bytes.try_into().map_err(|_| key("a public key has 65 bytes, in base64"))?;
        Self::from_point(point)
    }

    pub(super) fn from_point(point: [u8; POINT_SIZE]) -> Result<Self, ArchiveError> {
        let parsed = ParsedPublicKey::try_from(UnparsedPublicKey::new(&ECDH_P256, &point));
        let on_curve = point[0] == 4 && parsed.is_ok_and(|key| key.alg() == &ECDH_P256);
        if on_curve { Ok(Self(point)) } else { Err(key("a public key must be a point of the curve P-256")) }
    }

    pub(super) fn point(&self) -> &[u8; POINT_SIZE] {
        &self.0
    }

    /// The line of base64, without its end.
    pub fn encode(&self) -> String {
        STANDARD.encode(self.0)
    }
}

/// What opens archives that were encrypted for its public key.
pub struct PrivateKey(agreement::PrivateKey);

impl PrivateKey {
    /// A new one.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        loop {
            let scalar = Zeroizing::new(random_bytes::<32>(entropy));
            // One in four thousand million is no number below the order of the group.
            if let Ok(key) = agreement::PrivateKey::from_private_key(&ECDH_P256, &*scalar) {
                return Self(key);
            }
        }
    }

    /// Reads a private key file: PEM, with a PKCS#8 key inside.
    ///
    /// # Errors
    /// If it is not a private key of P-256.
    pub fn decode(pem: &[u8]) -> Result<Self, ArchiveError> {
        let der =
            PrivateKeyDer::from_pem_slice(pem).map_err(|_| key("a private key is a PEM file with a PKCS#8 key"))?;
        let PrivateKeyDer::Pkcs8(der) = &der else {
            return Err(key("a private key is a PEM file with a PKCS#8 key, `BEGIN PRIVATE KEY`"));
        };
        let private = agreement::PrivateKey::from_private_key_der(&ECDH_P256, der.secret_pkcs8_der());
        private.map(Self).map_err(|_| key("a private key must be of the curve P-256"))
    }

    /// The private key file.
    pub fn encode(&self) -> Zeroizing<String> {
        let der: Pkcs8V1Der = self.0.as_der().expect("a P-256 key has a PKCS#8 form");
        let body = Zeroizing::new(STANDARD.encode(der.as_ref()));
        let mut pem = Zeroizing::new(String::with_capacity(body.len() + 80));
        pem.push_str("-----BEGIN PRIVATE KEY-----\n");
        for line in body.as_bytes().chunks(PEM_LINE) {
            pem.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
            pem.push('\n');
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        pem
    }

    /// Its public key.
    pub fn public(&self) -> PublicKey {
        let public = self.0.compute_public_key().expect("a P-256 key has a public half");
        PublicKey(public.as_ref().try_into().expect("an uncompressed point"))
    }

    /// What it and `public` have in common, given to `use_it` and nobody else.
    pub(super) fn agree<T>(
        &self,
        public: &PublicKey,
        use_it: impl FnOnce(&[u8]) -> Result<T, ArchiveError>,
    ) -> Result<T, ArchiveError> {
        let public = UnparsedPublicKey::new(&ECDH_P256, public.point());
        agreement::agree(&self.0, public, key("the two keys do not fit"), use_it)
    }
}

impl fmt::Debug for PrivateKey {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

fn key(what: &'static str) -> ArchiveError {
    ArchiveError::Key { what }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::SystemEntropy;

    /// The vendor's built-in recipient: the one real public key that is known.
    const VENDOR: &str = "BGa4rFkHUGHIW4BscM7U5A/wnQlkN8CMUohu18sTC/qLEztz8Cm01YiyaRmrauCZK02gYJp51i+4GE9VAqzWF70=";

    #[test]
    fn a_public_key_is_a_line_of_base64() {
        let key = PublicKey::decode(&format!(" {VENDOR}\n")).unwrap();
        assert_eq!(key.encode(), VENDOR);
        let off_the_curve = VENDOR.replacen("BGa4", "BGa5", 1);
        for text in ["", "AAAA", "not base64!", &off_the_curve] {
            assert!(matches!(PublicKey::decode(text), Err(ArchiveError::Key { .. })), "{text}");
        }
    }

    #[test]
    fn a_private_key_file_is_pkcs8_and_reads_back_as_the_same_key() {
        let private = PrivateKey::generate(&SystemEntropy);
        let pem = private.encode();
        assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg"));
        assert_eq!(PrivateKey::decode(pem.as_bytes()).unwrap().public(), private.public());
        assert!(!format!("{private:?}").contains("BEGIN"));
    }

    #[test]
    fn what_is_no_private_key_of_the_curve_is_refused() {
        for pem in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", VENDOR] {
            assert!(matches!(PrivateKey::decode(pem.as_bytes()), Err(ArchiveError::Key { .. })), "{pem}");
        }
    }
}
