//! `type = "client_certificate"`.

use super::value;
use crate::config::read::complaint::Complaint;
use crate::config::read::node::Node;
use crate::config::read::table::Table;
use crate::config::{CertificateAuth, CertificateFact};

const MAX_NAMES: usize = 10_000;
/// A fact's text is never longer, so nothing longer would ever be equal.
const MAX_NAME: usize = 4 * 1024;
const KINDS: [&str; 4] = ["DNS:", "URI:", "email:", "IP:"];

pub(super) fn client_certificate(table: &mut Table<'_>) -> Option<CertificateAuth> {
    let subject_from = table.or("subject_from", CertificateFact::Subject, |node| {
        let facts = [
            ("subject", CertificateFact::Subject),
            ("san", CertificateFact::San),
            ("fingerprint", CertificateFact::Fingerprint),
        ];
        node.word(&facts, &[])
    });
    let subjects = names(table, "subjects", |text| Ok(text.to_owned()));
    let sans = names(table, "sans", san);
    let fingerprints = names(table, "fingerprints", fingerprint);
    Some(CertificateAuth { subject_from: subject_from?, subjects: subjects?, sans: sans?, fingerprints: fingerprints? })
}

fn names(
    table: &mut Table<'_>,
    key: &'static str,
    parse: fn(&str) -> Result<String, Complaint>,
) -> Option<Vec<String>> {
    let name = |item: &Node<'_>| {
        value::text(item)?;
        item.parse(|text| {
            if text.len() > MAX_NAME || !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
                return Err(Complaint::new("a name in a certificate is told in visible ASCII, up to 4 KiB (RFC 4514)"));
            }
            parse(text)
        })
    };
    table.or(key, Vec::new(), |node| node.some(MAX_NAMES, "nobody would be let in; leave it out for no list", name))
}

fn san(text: &str) -> Result<String, Complaint> {
    if KINDS.iter().any(|kind| text.starts_with(kind)) {
        return Ok(text.to_owned());
    }
    Err(Complaint::new("the kind is missing, as in \"DNS:orders.internal\" or \"URI:spiffe://prod/*\""))
}

/// As tools print it: hexadecimal, in upper or lower case, perhaps with colons.
fn fingerprint(text: &str) -> Result<String, Complaint> {
    let digits = text.replace(':', "").to_ascii_lowercase();
    if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(digits);
    }
    Err(Complaint::new("this is not the SHA-256 of a certificate: 64 hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_tools_print_it() {
        let (lower, colons) = ("ab".repeat(32), vec!["AB"; 32].join(":"));
        assert_eq!(fingerprint(&colons), Ok(lower.clone()));
        assert_eq!(fingerprint(&lower), Ok(lower.clone()));
        for text in ["", "ab", &lower[1..], &"xy".repeat(32)] {
            fingerprint(text).expect_err(text);
        }
    }
}
