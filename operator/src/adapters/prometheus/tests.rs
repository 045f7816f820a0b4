use super::*;
use crate::web::Secret;
use axum::Router;
use axum::extract::State;
use axum::http::Uri;
use cupcake_engine::clock::{SimClock, Timestamp};
use std::sync::Mutex;
use tokio::net::TcpListener;

/// What the answers of 2.42 and 3.x look like, and what they come to.
#[test]
fn an_answer_is_one_number_nothing_too_many_or_a_reason() {
    let told = |status: u16, body: &str| match read(StatusCode::from_u16(status).unwrap(), body.as_bytes()) {
        Ok(measured) => format!("{measured:?}"),
        Err(OpsError::NeedsOperator(reason)) => format!("never {}: {}", reason.code, reason.message),
        Err(error) => format!("later: {error}"),
    };
    let vector =
        |series: &str| format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{series}]}}}}"#);
    let one = r#"{"metric":{},"value":[1790000000.1,"0.034"]}"#;
    for (status, body, wanted) in [
        (200, vector(one), "Value(0.034)"),
        (200, vector(""), "Nothing"),
        (200, vector(&format!("{one},{one}")), "Many(2)"),
        (200, vector(&one.replace("0.034", "+Inf")), "Value(inf)"),
        (200, vector(&one.replace("0.034", "NaN")), "Value(NaN)"),
        (
            200,
            r#"{"status":"success","data":{"resultType":"scalar","result":[1790000000.1,"7"]}}"#.into(),
            "Value(7.0)",
        ),
        (
            200,
            r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#.into(),
            "never QueryRefused: the query gives a matrix, a number is needed",
        ),
        (
            400,
            r#"{"status":"error","errorType":"bad_data","error":"1:4: parse error: unclosed left parenthesis"}"#.into(),
            "never QueryRefused: Prometheus cannot read the query: 1:4: parse error: unclosed left parenthesis",
        ),
        (
            422,
            r#"{"status":"error","errorType":"execution","error":"many-to-many matching"}"#.into(),
            "later: PrometheusAway: it answered 422 Unprocessable Entity: many-to-many matching",
        ),
        (503, "<html>".into(), "later: PrometheusAway: it answered 503 Service Unavailable"),
        (200, "<html>".into(), "later: PrometheusAway: its answer is none of Prometheus"),
    ] {
        assert_eq!(told(status, &body), wanted);
    }
}

async fn answer(State(asked): State<Arc<Mutex<Vec<String>>>>, uri: Uri) -> String {
    asked.lock().unwrap().push(uri.to_string());
    r#"{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}"#.to_owned()
}

#[tokio::test]
async fn a_query_arrives_as_it_was_written_below_the_path_of_the_url_and_nobody_waits_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let router = Router::new().fallback(answer).with_state(Arc::clone(&asked));
    let clock = Arc::new(SimClock::starting_at(Timestamp::UNIX_EPOCH));
    let of =
        |url: String| Prometheus::new(Place::Given(Secret::from(url.as_str())), Arc::clone(&clock) as Arc<dyn Clock>);
    let prometheus = of(format!("http://{address}/select/0/prometheus/"));
    let query = r#"sum(rate(x{code=~"5..",a="\u{fc}&b"}[5m])) > 0"#;
    tokio::select! {
        biased;
        // Its own time-out is not raced here: the clock of this test passes at once.
        answered = prometheus.asked(query) => assert_eq!(answered.unwrap(), Measured::Value(1.0)),
        ended = axum::serve(listener, router) => panic!("the server ended: {ended:?}"),
    }
    let uri = asked.lock().unwrap().pop().unwrap();
    let (path, sent) = uri.split_once("?query=").unwrap();
    assert_eq!(path, "/select/0/prometheus/api/v1/query");
    assert_eq!(sent, encoded(query));
    assert!(sent.starts_with("sum%28rate%28x%7Bcode%3D~%225..%22") && !sent.contains('&'), "{sent}");

    // One that takes the connection and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let prometheus = of(format!("http://{}", silent.local_addr().unwrap()));
    let Err(OpsError::Transient(reason)) = prometheus.ask("up").await else { panic!("nobody answers") };
    assert!(reason.code == "PrometheusAway" && reason.message.contains("no answer within 10 s"), "{reason:?}");
}
