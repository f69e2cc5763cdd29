//! Which certificate is shown for which server name.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::Certificate;
use crate::config::{self, Problem};

/// The certificates of one listener, by the names they cover.
#[derive(Debug)]
pub struct Certificates {
    /// In the order of the configuration; the first is the default
    all: Vec<Arc<Certificate>>,
    /// Index by exact name, or by the parent of a wildcard with a leading dot
    by_name: HashMap<String, usize>,
}

impl Certificates {
    /// Parses them all. Where two cover the same name, the earlier one is shown.
    ///
    /// # Errors
    /// The first that cannot be used, as `tls.certificates`.
    pub fn build(specs: &[config::Certificate], provider: &CryptoProvider) -> Result<Self, Problem> {
        let mut certificates = Self { all: Vec::with_capacity(specs.len()), by_name: HashMap::new() };
        for (index, spec) in specs.iter().enumerate() {
            let certificate = Certificate::build(spec, provider)
                .map_err(|problem| problem.under(&format!("tls.certificates[{index}]")))?;
            for name in certificate.names.iter() {
                let key = name.strip_prefix('*').unwrap_or(name).to_owned();
                certificates.by_name.entry(key).or_insert(index);
            }
            certificates.all.push(Arc::new(certificate));
        }
        Ok(certificates)
    }

    /// The certificate for a server name: exact, then wildcard, then the default.
    pub fn pick(&self, server_name: Option<&str>) -> &Arc<Certificate> {
        let index = server_name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let parent = name.find('.').map(|dot| &name[dot..]);
            self.by_name.get(&name).or_else(|| self.by_name.get(parent?)).copied()
        });
        &self.all[index.unwrap_or(0)]
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.all.iter()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.pick(hello.server_name()).key))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey as Generated, generate_simple_self_signed};

    use super::*;
    use crate::config::{FileContent, Secret};

    fn file(name: &str, text: String) -> FileContent {
        FileContent { path: name.into(), content: Secret::new(text.into_bytes()) }
    }

    fn generated(names: &[&str]) -> (String, String) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let Generated { cert, signing_key } = generate_simple_self_signed(names).expect("generated");
        (cert.pem(), signing_key.serialize_pem())
    }

    fn spec(names: &[&str]) -> config::Certificate {
        let (cert, key) = generated(names);
        config::Certificate { cert: file("cert.pem", cert), key: file("key.pem", key) }
    }

    fn provider() -> CryptoProvider {
        rustls::crypto::aws_lc_rs::default_provider()
    }

    #[test]
    fn exact_names_come_before_wildcards_and_those_before_the_default() {
        let specs = [spec(&["default.example"]), spec(&["*.b.example"]), spec(&["x.b.example"])];
        let certificates = Certificates::build(&specs, &provider()).expect("built");
        let first_name = |server_name| certificates.pick(server_name).names[0].clone();
        assert_eq!(first_name(Some("X.b.example")), "x.b.example");
        assert_eq!(first_name(Some("y.b.example")), "*.b.example");
        assert_eq!(first_name(Some("y.z.b.example")), "default.example");
        assert_eq!(first_name(Some("b.example")), "default.example");
        assert_eq!(first_name(None), "default.example");
    }

    #[test]
    fn a_foreign_key_is_named_as_the_problem() {
        let mut spec = spec(&["a.example"]);
        spec.key = file("key.pem", generated(&["b.example"]).1);
        let problem = Certificates::build(&[spec], &provider()).expect_err("refused");
        assert_eq!(problem.path, "tls.certificates[0].key_file");
        assert!(problem.message.contains("does not belong"), "{}", problem.message);
    }

    #[test]
    fn a_broken_key_is_never_quoted() {
        let mut spec = spec(&["a.example"]);
        spec.key = file("key.pem", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0!\n-----END PRIVATE KEY-----\n".into());
        let problem = Certificates::build(&[spec], &provider()).expect_err("refused");
        assert!(!problem.message.contains("c2Vj"), "{}", problem.message);
    }
}
