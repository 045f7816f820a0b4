//! The two servers, and what each made up: UIDs, versions, tokens and names take the place of the placeholders of a step.

use super::compare::{self, Roles};
use super::generate::{Body, EndedBy, MARK, Step, Watch};
use super::protobuf;
use bytes::Bytes;
use cupcake_sandbox::api::Server;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long the events of a watch may take.
const WATCH_SECONDS_MAX: u64 = 20;

/// A server under comparison.
#[derive(Clone)]
pub enum Door {
    Real(kube::Client),
    Sandbox(Server),
}

type Response = http::Response<UnsyncBoxBody<Bytes, String>>;

impl Door {
    async fn send(&self, request: http::request::Builder, body: Bytes) -> Response {
        let request = request.header("user-agent", "conformance/1");
        match self {
            Self::Real(client) => {
                let request = request.body(kube::client::Body::from(body.to_vec())).unwrap();
                let response = client.send(request).await.unwrap();
                response.map(|body| body.map_err(|error| error.to_string()).boxed_unsync())
            }
            Self::Sandbox(server) => {
                let response = server.handle("conformance", request.body(body).unwrap());
                response.map(|body| body.map_err(|never| match never {}).boxed_unsync())
            }
        }
    }

    /// One plain request, for what goes around a sequence.
    pub async fn plain(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = http::Request::builder().method(method).uri(path).header("content-type", content_type);
        let response = self.send(request, body).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }
}

/// What was last seen under a name.
#[derive(Debug, Default)]
struct Seen {
    uid: String,
    revisions: Vec<String>,
    object: Option<Value>,
}

/// One server in one sequence.
pub struct Side {
    door: Door,
    me: String,
    namespace: String,
    seen: BTreeMap<String, Seen>,
    token: String,
    generated: String,
    roles: Roles,
}

impl Side {
    pub fn new(door: Door, me: &str, namespace: &str) -> Self {
        Self {
            door,
            me: me.to_owned(),
            namespace: namespace.to_owned(),
            seen: BTreeMap::new(),
            token: String::new(),
            generated: String::new(),
            roles: Roles::default(),
        }
    }

    /// Sends a step and gives the answer, as it came and without what must differ.
    pub async fn take(&mut self, step: &Step) -> Value {
        let path = self.fill(&step.path);
        let body = self.body(&step.body);
        let mut request = http::Request::builder().method(step.method).uri(path).header("accept", step.accept);
        if !step.content_type.is_empty() {
            request = request.header("content-type", step.content_type);
        }
        let response = self.door.send(request, Bytes::from(body)).await;
        let code = response.status().as_u16();
        let header = |name: &str| {
            let values = response.headers().get_all(name).iter();
            values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect::<Vec<String>>()
        };
        let mut answer = json!({
            "code": code, "type": header("content-type"), "warnings": header("warning"), "retryAfter": header("retry-after"),
        });
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_no_json| Value::from(String::from_utf8_lossy(&bytes).into_owned()));
        if (200..300).contains(&code) {
            self.remember(step, &body);
        }
        answer["body"] = body;
        self.roles.tidy(&mut answer);
        answer
    }

    fn remember(&mut self, step: &Step, body: &Value) {
        let metadata = &body["metadata"];
        if let Some(token) = metadata["continue"].as_str() {
            token.clone_into(&mut self.token);
        }
        let (Some(name), Some(uid)) = (metadata["name"].as_str(), metadata["uid"].as_str()) else { return };
        if name.starts_with(&format!("{}-g-", self.me)) {
            name.clone_into(&mut self.generated);
        }
        let tried = match &step.body {
            Body::Json(options) | Body::Protobuf(options) => !options["dryRun"].is_null(),
            Body::None | Body::Raw(_) | Body::Edited { .. } => false,
        };
        if tried || step.path.contains("dryRun") {
            return;
        }
        let seen = self.seen.entry(format!("{}/{name}", step.plural)).or_default();
        if seen.uid != uid {
            *seen = Seen { uid: uid.to_owned(), ..Seen::default() };
        }
        let revision = metadata["resourceVersion"].as_str().unwrap_or_default();
        if seen.revisions.last().is_none_or(|last| last != revision) {
            seen.revisions.push(revision.to_owned());
        }
        if body["kind"] != "PartialObjectMetadata" {
            seen.object = Some(body.clone());
        }
    }

    fn body(&self, body: &Body) -> Vec<u8> {
        if let Body::Protobuf(value) = body {
            return protobuf::encode(&serde_json::from_str(&self.fill(&value.to_string())).unwrap());
        }
        self.text(body).into_bytes()
    }

    fn text(&self, body: &Body) -> String {
        match body {
            Body::None | Body::Protobuf(_) => String::new(),
            Body::Raw(text) => self.fill(text),
            Body::Json(value) => self.fill(&value.to_string()),
            Body::Edited { of, overlay, otherwise } => {
                let seen = self.seen.get(&self.fill(of)).and_then(|seen| seen.object.clone());
                let Some(mut object) = seen else { return self.fill(&otherwise.to_string()) };
                let overlay = serde_json::from_str(&self.fill(&overlay.to_string())).unwrap();
                compare::merge(&mut object, &overlay);
                object.to_string()
            }
        }
    }

    /// The text with this side's values in the place of the placeholders.
    fn fill(&self, text: &str) -> String {
        let text = text.replace("@me@", &self.me).replace("@ns@", &self.namespace);
        let mut filled = String::with_capacity(text.len());
        for (at, part) in text.split('@').enumerate() {
            if at % 2 == 0 {
                filled.push_str(part);
                continue;
            }
            match part.split_once(':') {
                Some((what, key)) => filled.push_str(self.value(what, key)),
                None if part == "continue" => filled.push_str(&self.token),
                None if part == "gen" && self.generated.is_empty() => filled.push_str("none"),
                None => filled.push_str(&self.generated),
            }
        }
        filled
    }

    fn value(&self, what: &str, key: &str) -> &str {
        let Some(seen) = self.seen.get(key) else {
            return if what == "uid" { "00000000-0000-0000-0000-000000000000" } else { "1" };
        };
        let revisions = &seen.revisions;
        match what {
            "uid" => &seen.uid,
            "old" => &revisions[revisions.len().saturating_sub(2)],
            _newest => &revisions[revisions.len() - 1],
        }
    }

    /// Opens a watch from the present state of its collection.
    pub async fn open(&self, watch: &Watch) -> UnsyncBoxBody<Bytes, String> {
        let place = format!("{}?{}", self.fill(&watch.collection), self.fill(&watch.selector));
        let (_, list) = self.door.plain("GET", &place, Value::Null).await;
        let revision = list["metadata"]["resourceVersion"].as_str().unwrap_or_else(|| panic!("{place}: {list:#}"));
        let path = format!("{place}&watch=true&resourceVersion={revision}{}", watch.options);
        let request = http::Request::builder().method("GET").uri(path).header("accept", watch.accept);
        self.door.send(request, Bytes::new()).await.into_body()
    }

    /// Does what ends a watch.
    async fn end(&self, watch: &Watch) {
        let collection = self.fill(&watch.collection);
        let last = match &watch.ended_by {
            EndedBy::Creation(last) => last,
            EndedBy::Mark(last) => {
                let mark = json!({"metadata": {"annotations": {MARK: "x"}}});
                let (code, answer) = self.door.plain("PATCH", &format!("{collection}/{}-a", self.me), mark).await;
                if code != 404 {
                    return assert_eq!(code, 200, "the mark that ends a watch: {answer:#}");
                }
                last
            }
        };
        let last = serde_json::from_str(&self.fill(&last.to_string())).unwrap();
        let (code, answer) = self.door.plain("POST", &collection, last).await;
        assert_eq!(code, 201, "the object that ends a watch: {answer:#}");
    }

    /// Ends a watch, and gives all its events.
    pub async fn close(&mut self, watch: &Watch, mut events: UnsyncBoxBody<Bytes, String>) -> Value {
        self.end(watch).await;
        let last = match &watch.ended_by {
            EndedBy::Creation(_) => format!("\"{}-end\"", self.me),
            EndedBy::Mark(_) => format!("\"{MARK}\""),
        };
        let mut text = String::new();
        let read = async {
            while !(text.contains(&last) && text.ends_with('\n')) {
                match events.frame().await {
                    Some(Ok(frame)) => text.push_str(&String::from_utf8_lossy(&frame.into_data().unwrap_or_default())),
                    Some(Err(error)) => return text.push_str(&Value::from(error).to_string()),
                    None => return,
                }
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(WATCH_SECONDS_MAX), read).await.is_ok();
        if !ended {
            text.push_str("\"no more events\"");
        }
        let lines = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        // Bookmarks come when a server has a moment.
        let mut events: Value = lines.map_while(Result::ok).filter(|event| event["type"] != "BOOKMARK").collect();
        self.roles.tidy(&mut events);
        json!({"events": events})
    }

    /// Removes what the sequence left in a collection.
    pub async fn clean(&self, collection: &str) {
        let collection = self.fill(collection);
        // A namespace belongs to one sequence at a time; what is not in one is told apart by its label.
        let mine = if collection.contains("/namespaces/") { "" } else { "labelSelector=conf%3D" };
        let mine = if mine.is_empty() { "limit=500".to_owned() } else { format!("{mine}{}", self.me) };
        let place = format!("{collection}?{mine}");
        self.door.plain("DELETE", &format!("{place}&gracePeriodSeconds=0"), Value::Null).await;
        let (_, left) = self.door.plain("GET", &place, Value::Null).await;
        for object in left["items"].as_array().into_iter().flatten() {
            let path = format!("{collection}/{}", object["metadata"]["name"].as_str().unwrap());
            self.door.plain("PATCH", &path, json!({"metadata": {"finalizers": null}})).await;
            self.door.plain("DELETE", &format!("{path}?gracePeriodSeconds=0"), Value::Null).await;
        }
    }
}
