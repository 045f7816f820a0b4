use super::*;
use crate::notify::message::tests::letter;
use crate::web::Secret;
use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::Uri;
use cupcake_crds::notice::Transition;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// What stands in every URL here and must be printed nowhere.
const TOKEN: &str = "T0KEN-of-a-hook";

/// A receiver that answers what it is told to, and remembers what it got.
#[derive(Clone, Default)]
struct Receiver {
    answers: Arc<Mutex<Vec<u16>>>,
    got: Arc<Mutex<Vec<(String, HeaderMap, String)>>>,
}

async fn receive(State(receiver): State<Receiver>, uri: Uri, headers: HeaderMap, body: String) -> StatusCode {
    receiver.got.lock().unwrap().push((uri.to_string(), headers, body));
    let next = receiver.answers.lock().unwrap().pop().unwrap_or(204);
    StatusCode::from_u16(next).unwrap()
}

/// A server on loopback, with its URL; it answers with those, the last one first, and then with 204.
async fn serve(answers: &[u16]) -> (Receiver, String, impl Future<Output = ()>) {
    let receiver = Receiver { answers: Arc::new(Mutex::new(answers.to_vec())), ..Receiver::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/services/{TOKEN}?key={TOKEN}", listener.local_addr().unwrap());
    let router = Router::new().fallback(receive).with_state(receiver.clone());
    let serving = async move { axum::serve(listener, router).await.unwrap() };
    (receiver, url, serving)
}

/// Posts as often as that, and gives what became of it and what the server got.
async fn posted(format: Format, answers: &[u16], times: usize) -> (Vec<Result<(), PostError>>, Receiver) {
    let (receiver, url, serving) = serve(answers).await;
    let sink = HttpSink::new(Place::Given(Secret::from(url.as_str())), format, "prod-eu".to_owned());
    let letter = letter(Transition::RequiresAttention, "shop/db keeps w-1");
    let posting = async {
        let mut ends = Vec::new();
        for _ in 0..times {
            ends.push(sink.post(&letter).await);
        }
        ends
    };
    tokio::select! {
        biased;
        ends = posting => (ends, receiver),
        () = serving => panic!("the server ended"),
    }
}

#[tokio::test]
async fn a_server_gets_what_was_written_in_each_format_at_the_path_that_was_given() {
    for format in [Format::Cloudevents, Format::CloudeventsBinary, Format::Slack] {
        let (ends, receiver) = posted(format, &[], 2).await;
        assert_eq!(ends, [Ok(()), Ok(())], "{format:?}");
        let got = receiver.got.lock().unwrap().clone();
        let (uri, headers, body) = &got[0];
        assert_eq!(uri, &format!("/services/{TOKEN}?key={TOKEN}"));
        let written = message::write(&letter(Transition::RequiresAttention, "shop/db keeps w-1"), format, "prod-eu");
        assert_eq!(*body, written.body);
        for (name, value) in &written.headers {
            assert_eq!(headers.get(*name).unwrap(), value, "{format:?} {name}");
        }
        assert!(headers.get("user-agent").unwrap().to_str().unwrap().starts_with("cupcake-operator/"));
        let _is_json: Value = serde_json::from_str(body).unwrap();
        assert_eq!(got[0].2, got[1].2, "told twice it is the same");
    }
}

#[tokio::test]
async fn what_somebody_may_mend_is_tried_again_and_what_the_sink_refuses_is_not() {
    let (mut ends, receiver) = posted(Format::Slack, &[410, 400, 301, 404, 403, 429, 503], 8).await;
    assert_eq!(receiver.got.lock().unwrap().len(), 8, "no redirect is followed, nothing is tried by itself");
    assert_eq!(ends.pop(), Some(Ok(())));
    let again = ends.iter().map(|end| matches!(end, Err(PostError::Later(_)))).collect::<Vec<_>>();
    assert_eq!(again, [true, true, true, true, false, false, false], "{ends:?}");
    assert_eq!(ends[0], Err(PostError::Later("the sink answered 503 Service Unavailable".into())));
}

#[tokio::test]
async fn no_failure_names_the_url() {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let urls = [
        format!("http://127.0.0.1:{port}/{TOKEN}"),
        format!("https://127.0.0.1:{port}/{TOKEN}"),
        format!("http://{TOKEN}.invalid/"),
        format!("ftp://example.com/{TOKEN}"),
        format!("https://user:{TOKEN}@example.com/"),
        format!("http://exa mple.com/{TOKEN}"),
        format!("/{TOKEN}"),
        String::new(),
    ];
    for url in urls {
        let source = Place::Given(Secret::from(url.as_str()));
        assert!(!format!("{source:?}").contains(TOKEN));
        let end =
            HttpSink::new(source, Format::Cloudevents, String::new()).post(&letter(Transition::Paused, "m")).await;
        let Err(PostError::Later(why)) = end else { panic!("{url}: {end:?}") };
        assert!(!why.contains(TOKEN) && !why.is_empty(), "{url}: {why}");
    }
    let (ends, _) = posted(Format::Slack, &[500, 400, 302], 3).await;
    assert!(!format!("{ends:?}").contains(TOKEN), "{ends:?}");
}

/// A folder of its own, as a Secret is mounted.
#[expect(clippy::disallowed_methods, reason = "a test writes the files that a Secret would be")]
fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("cupcake-notify-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (name, content) in files {
        std::fs::write(folder.join(name), content).unwrap();
    }
    folder
}

#[expect(clippy::disallowed_methods, reason = "a test writes the files that a Secret would be")]
fn gone(folder: &Path) {
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn url_and_token_in_a_folder_are_read_anew_each_time() {
    let (receiver, url, serving) = serve(&[]).await;
    let place = folder("anew", &[]);
    let sink = HttpSink::new(Place::Folder(place.clone()), Format::Slack, String::new());
    let letter = letter(Transition::Paused, "m");
    let posting = async {
        let Err(PostError::Later(why)) = sink.post(&letter).await else { panic!("there is no file") };
        assert!(why.ends_with("/url cannot be read: entity not found"), "{why}");
        folder("anew", &[("url", &format!("{url}\n"))]);
        let first = sink.post(&letter).await;
        folder("anew", &[("token", &format!("{TOKEN}\n"))]);
        (first, sink.post(&letter).await)
    };
    tokio::select! {
        biased;
        ends = posting => assert_eq!(ends, (Ok(()), Ok(()))),
        () = serving => panic!("the server ended"),
    }
    let got = receiver.got.lock().unwrap().clone();
    let sent: Vec<_> =
        got.iter().map(|(_, headers, _)| headers.get("authorization").map(|one| one.to_str().unwrap())).collect();
    assert_eq!(sent, [None, Some(format!("Bearer {TOKEN}").as_str())]);
    let read = Place::Folder(place.clone()).read().await.unwrap();
    assert!(!format!("{:?} {:?}", read.token, read.roots).contains(TOKEN));
    for (name, content, wanted) in [
        ("token", "two\nlines", "/token holds no token that a header takes"),
        ("ca.crt", "no certificate", "/ca.crt holds no certificate in PEM"),
        (
            "ca.crt",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "/ca.crt holds a certificate in place 1 that is none: ",
        ),
        ("ca.crt", "-----BEGIN CERTIFICATE-----\n", "/ca.crt holds something that is no PEM in place 1"),
    ] {
        folder("anew", &[("token", "good"), (name, content)]);
        let why = Place::Folder(place.clone()).read().await.unwrap_err().to_string();
        assert!(why.contains(wanted), "{why}");
    }
    gone(&place);
}

#[tokio::test]
async fn https_reaches_a_server_whose_certificate_a_root_vouches_for_and_no_other() {
    let pem = include_str!("../../../testdata/sink.pem");
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../../../testdata/sink.key")).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/hook", listener.local_addr().unwrap());
    // Answers each connection that comes to a request.
    let serving = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4_096];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"POST /hook HTTP/1.1\r\n"));
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            let _ = stream.shutdown().await;
        }
    };
    let place = folder("https", &[("url", &url)]);
    let sink = HttpSink::new(Place::Folder(place.clone()), Format::Slack, String::new());
    let letter = letter(Transition::Succeeded, "done");
    let posting = async {
        let stranger = sink.post(&letter).await;
        folder("https", &[("ca.crt", pem)]);
        (stranger, sink.post(&letter).await)
    };
    let (stranger, known) = tokio::select! {
        biased;
        ends = posting => ends,
        () = serving => panic!("the server ended"),
    };
    let Err(PostError::Later(why)) = stranger else { panic!("{stranger:?}") };
    assert!(why.contains("UnknownIssuer"), "{why}");
    assert_eq!(known, Ok(()));
    gone(&place);
}
