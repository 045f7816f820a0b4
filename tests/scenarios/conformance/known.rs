//! Where the sandbox's API differs from kube-apiserver, and why that is left so: the table of docs/sandbox.md.

use super::compare::Difference;
use serde_json::Value;

/// One answer pair in which a difference was found.
pub struct Answers<'a> {
    /// What was asked, as [`super::generate::Step::what`].
    pub what: &'a str,
    pub real: &'a Value,
    pub sandbox: &'a Value,
}

impl Answers<'_> {
    fn message(&self) -> &str {
        self.real["body"]["message"].as_str().unwrap_or_default()
    }

    fn refused_alike(&self) -> bool {
        self.real["code"] == self.sandbox["code"] && self.real["code"].as_u64().is_some_and(|code| code >= 400)
    }
}

/// A difference that is known, documented and left.
pub struct Known {
    /// The line of the table in docs/sandbox.md that it stands for.
    pub title: &'static str,
    /// Whether the two servers hold different objects from then on, so that nothing after it can be compared.
    pub parts: bool,
    pub covers: fn(&Answers<'_>, &Difference) -> bool,
}

pub const KNOWN: &[Known] = &[
    Known {
        title: "words of Go's decoders",
        parts: false,
        covers: |answers, difference| {
            let decoding = [
                "Invalid JSON Patch",
                "is invalid: patch: Invalid value",
                "failed to create typed patch object",
                "failed to create manager for existing fields",
                "cannot unmarshal",
                "unexpected end of JSON input",
                "cannot be handled as a",
                "json parse error",
                "unable to decode",
                "error decoding patch",
                "Object 'Kind' is missing",
            ];
            answers.refused_alike()
                && (difference.pointer == "/body/message" || difference.pointer == "/body/details/causes/0/message")
                && decoding.iter().any(|words| answers.message().contains(words))
        },
    },
    Known {
        title: "words of refused label selectors",
        parts: false,
        covers: |answers, difference| {
            answers.refused_alike()
                && difference.pointer == "/body/message"
                && answers.message().starts_with("unable to parse requirement")
        },
    },
    Known {
        title: "what a refused pod update changed",
        parts: false,
        covers: |answers, _difference| {
            answers.refused_alike() && answers.real.to_string().contains("pod updates may not")
        },
    },
    Known {
        title: "duplicate fields without fieldValidation",
        parts: false,
        covers: |_answers, difference| {
            difference.pointer.starts_with("/warnings/") && difference.text().contains("duplicate field")
        },
    },
    Known {
        title: "what admission plugins add",
        parts: true,
        covers: |answers, difference| {
            answers.what.contains("nodes") && difference.pointer.starts_with("/body/spec/taints")
        },
    },
    Known {
        title: "words of refused continue tokens",
        parts: false,
        covers: |answers, difference| {
            answers.refused_alike() && difference.text().contains("continue key is not valid")
        },
    },
    Known {
        title: "quantities as they were written",
        parts: true,
        covers: |_answers, difference| {
            ["capacity", "allocatable", "requests", "limits"].iter().any(|part| difference.pointer.contains(part))
        },
    },
    Known {
        title: "owners of the fields of events.k8s.io",
        parts: true,
        covers: |answers, difference| {
            answers.what.starts_with("apply events")
                || (answers.what.contains("events") && difference.pointer == "/body/metadata/resourceVersion")
        },
    },
    Known {
        title: "a status that is written with other changes, which are dropped",
        parts: true,
        covers: |answers, difference| {
            answers.what.contains("/status") && difference.pointer.ends_with("metadata/resourceVersion")
        },
    },
    Known {
        title: "who owns what an eviction writes",
        parts: false,
        covers: |answers, difference| {
            answers.what.starts_with("apply") && difference.text().contains("conflict with \"kube-apiserver\"")
        },
    },
    Known {
        title: "owners of labels and annotations that were written through a status",
        parts: true,
        covers: |answers, difference| {
            let aside = |answer: &Value| {
                let causes = answer["body"]["details"]["causes"].as_array();
                let field =
                    |cause: &Value| cause["field"].as_str().is_some_and(|field| field.starts_with(".metadata."));
                causes.is_some_and(|causes| causes.iter().any(field))
            };
            let conflict = answers.real["code"] == 409 || answers.sandbox["code"] == 409;
            answers.what.starts_with("apply")
                && conflict
                && (aside(answers.sandbox)
                    || aside(answers.real)
                    || difference.text().contains("with subresource \"status\""))
        },
    },
    Known {
        title: "the order of generated names",
        parts: true,
        covers: |answers, _difference| answers.real.to_string().matches("<generated name>").count() > 1,
    },
    Known {
        title: "a dry eviction of another pod's UID",
        parts: false,
        covers: |answers, _difference| {
            answers.what == "create pods/eviction" && answers.real["code"] == 429 && answers.sandbox["code"] == 409
        },
    },
    Known {
        title: "warnings beside the refusal of another version's object",
        parts: false,
        covers: |answers, difference| {
            difference.pointer.starts_with("/warnings/") && answers.message().starts_with("the API version in the data")
        },
    },
    Known {
        title: "warnings beside the refusal of an object just deleted",
        parts: false,
        covers: |answers, difference| {
            difference.pointer.starts_with("/warnings/")
                && difference.sandbox.is_none()
                && answers.what.starts_with("patch ")
                && answers.real["code"] == 404
        },
    },
    Known {
        title: "a deletion in two steps under one resourceVersion",
        parts: false,
        covers: |answers, difference| {
            answers.what.starts_with("delete ")
                && difference.pointer == "/code"
                && answers.message().contains("ResourceVersion in precondition: ")
        },
    },
    Known {
        title: "structures as Go prints them",
        parts: false,
        covers: |answers, difference| {
            let fields = ["\"MinAvailable\":", "\"FieldPath\":", "\"Component\":"];
            answers.refused_alike() && fields.iter().any(|field| difference.text().contains(field))
        },
    },
    Known {
        title: "rules on an object of another kind",
        parts: false,
        covers: |answers, _difference| {
            let other = |answer: &Value| {
                let causes = answer["body"]["details"]["causes"].as_array();
                causes.is_some_and(|causes| causes.iter().any(|cause| cause["field"] == "kind"))
            };
            other(answers.real) || other(answers.sandbox)
        },
    },
    Known {
        title: "equality in CEL of objects whose fields no schema knows",
        parts: false,
        covers: |answers, _difference| {
            let refused = |answer: &Value| answer.to_string().contains("a plan is written once and never changed");
            refused(answers.sandbox) && !refused(answers.real)
        },
    },
    Known {
        title: "descriptions of built-in columns",
        parts: false,
        covers: |_answers, difference| {
            difference.pointer.contains("/columnDefinitions/") && difference.pointer.ends_with("/description")
        },
    },
];
