//! Whatever a certificate says, an upstream can be told as a header, or is not told.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::config::CertificateFact;
use tollgate::tls::parse_client_certificate;

fuzz_target!(|der: &[u8]| {
    let Some(certificate) = parse_client_certificate(der) else { return };
    for (_, fact) in CertificateFact::ALL {
        let Some(text) = certificate.text(fact) else { continue };
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        assert_eq!(certificate.header(fact).map(|value| value.as_bytes()), Some(text.as_bytes()));
    }
});
