//! When certificates expire: the one date that is wanted of them, read without a library for all the rest.

use super::os::Files;
use chrono::NaiveDateTime;
use cupcake_engine::clock::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Folders of the control plane's certificates.
const FOLDERS: [&str; 2] = ["/etc/kubernetes/pki", "/etc/kubernetes/pki/etcd"];

/// kubeadm's certificate authorities, below the first of the folders (kubernetes.io, "PKI certificates and requirements", v1.34).
const AUTHORITIES: [&str; 3] = ["ca", "etcd/ca", "front-proxy-ca"];

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0] EXPLICIT`, the version that stands first in a certificate of X.509 v3.
const VERSION: u8 = 0xa0;

/// When the first of the control plane's certificates expires; `None` if there is none.
pub(crate) fn first_expiry(files: &Files) -> Option<Timestamp> {
    let paths = FOLDERS.into_iter().flat_map(|folder| files.entries(folder));
    let certificates = paths.filter(|path| path.extension().is_some_and(|ending| ending == "crt"));
    let texts = certificates.filter_map(|path| std::fs::read(path).ok());
    texts.filter_map(|text| expiry_of_pem(&text)).min()
}

/// Authorities whose certificate is there and whose key is not: kubeadm takes them for external, and renews nothing that they signed
/// (kubernetes/kubernetes 1.34, cmd/kubeadm/app/phases/certs/renewal/manager.go).
pub(crate) fn external_authorities(files: &Files) -> Vec<String> {
    let has = |name: &str, ending: &str| files.has(&format!("{}/{name}.{ending}", FOLDERS[0]));
    AUTHORITIES.into_iter().filter(|name| has(name, "crt") && !has(name, "key")).map(ToOwned::to_owned).collect()
}

/// When the first certificate of a PEM file expires.
fn expiry_of_pem(text: &[u8]) -> Option<Timestamp> {
    CertificateDer::pem_slice_iter(text).filter_map(Result::ok).filter_map(|der| not_after(&der)).min()
}

/// `tbsCertificate.validity.notAfter` (RFC 5280, 4.1).
fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    let (certificate, _) = expect(certificate, SEQUENCE)?;
    let (mut rest, _) = expect(certificate, SEQUENCE)?;
    if rest.first() == Some(&VERSION) {
        rest = element(rest)?.rest;
    }
    // serialNumber, signature, issuer
    for _ in 0..3 {
        rest = element(rest)?.rest;
    }
    let (validity, _) = expect(rest, SEQUENCE)?;
    let not_after = element(element(validity)?.rest)?;
    let text = std::str::from_utf8(not_after.content).ok()?;
    let text = match not_after.tag {
        // Two digits of the year: 50 to 99 are of the last century (RFC 5280, 4.1.2.5.1).
        UTC_TIME => format!("{}{text}", if text.get(..2)? < "50" { "20" } else { "19" }),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    NaiveDateTime::parse_from_str(&text, "%Y%m%d%H%M%SZ").ok().map(|time| time.and_utc())
}

struct Element<'d> {
    tag: u8,
    content: &'d [u8],
    rest: &'d [u8],
}

fn element(data: &[u8]) -> Option<Element<'_>> {
    let (&tag, data) = data.split_first()?;
    let (&first, mut data) = data.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let (bytes, rest) = data.split_at_checked(count)?;
        length = bytes.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte));
        data = rest;
    }
    let (content, rest) = data.split_at_checked(length)?;
    Some(Element { tag, content, rest })
}

fn expect(data: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let element = element(data)?;
    (element.tag == tag).then_some((element.content, element.rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::test_folder::TestFolder;

    /// As kubeadm 1.33.13 made it; `openssl x509 -enddate` says: Nov 22 17:29:15 2027 GMT.
    const APISERVER: &str = include_str!("fixtures/apiserver.crt");

    #[test]
    fn the_end_of_a_certificate_is_read_as_openssl_reads_it() {
        assert_eq!(expiry_of_pem(APISERVER.as_bytes()), "2027-11-22T17:29:15Z".parse().ok());
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        assert_eq!(expiry_of_pem(b"nothing"), None);
        let der = CertificateDer::from_pem_slice(APISERVER.as_bytes()).expect("a certificate");
        for cut in 0..der.len() {
            assert_eq!(not_after(&der[..cut]), None, "cut to {cut} bytes");
        }
    }

    #[test]
    fn keys_and_other_files_beside_the_certificates_are_passed_over() {
        let folder = TestFolder::new("certificates");
        let files = Files::below(folder.root().to_owned());
        assert_eq!(first_expiry(&files), None);
        folder.write("/etc/kubernetes/pki/apiserver.key", "x");
        folder.write("/etc/kubernetes/pki/etcd/server.crt", APISERVER);
        folder.write("/etc/kubernetes/pki/broken.crt", "x");
        assert_eq!(first_expiry(&files), "2027-11-22T17:29:15Z".parse().ok());
    }

    #[test]
    fn an_authority_is_external_where_its_certificate_is_there_without_its_key() {
        let folder = TestFolder::new("external-authorities");
        let files = Files::below(folder.root().to_owned());
        assert_eq!(external_authorities(&files), [""; 0], "a worker has the certificate elsewhere");
        for name in AUTHORITIES {
            folder.write(&format!("/etc/kubernetes/pki/{name}.crt"), "");
            folder.write(&format!("/etc/kubernetes/pki/{name}.key"), "");
        }
        assert_eq!(external_authorities(&files), [""; 0]);
        std::fs::remove_file(folder.path("/etc/kubernetes/pki/ca.key")).expect("it is there");
        std::fs::remove_file(folder.path("/etc/kubernetes/pki/etcd/ca.key")).expect("it is there");
        assert_eq!(external_authorities(&files), ["ca", "etcd/ca"]);
    }
}
