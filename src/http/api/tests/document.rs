//! The document tells all routes and no others, and answers have the fields that it tells and no others.

use std::collections::BTreeSet;

use super::{super::ROUTES, *};

fn document() -> Value {
    serde_json::from_str(super::super::OPENAPI).unwrap()
}

#[tokio::test]
async fn every_route_stands_in_the_document_and_the_other_way_round() {
    let served: BTreeSet<(String, String)> = ROUTES
        .iter()
        .flat_map(|(path, methods)| {
            methods.split(", ").map(move |method| (format!("/api/v1/{path}"), method.to_owned()))
        })
        .collect();
    let document = document();
    let methods = |(path, item): (&String, &Value)| {
        let methods: Vec<(String, String)> =
            item.as_object().unwrap().keys().map(|method| (path.clone(), method.to_uppercase())).collect();
        methods
    };
    let told: BTreeSet<(String, String)> = document["paths"].as_object().unwrap().iter().flat_map(methods).collect();
    assert_eq!(served, told);
    let api = Api::new();
    for (path, method) in served {
        let path = path.replace("{digest}", &Digest::of(Algorithm::Sha256, b"").to_string()).replace("{name}", "any");
        let headers = [("host", "localhost"), ("content-type", "application/json")];
        let answer = api.send(&method, &path, &headers, "").await;
        let message = answer.message();
        assert!(answer.status != 405 && !message.contains("there is nothing at"), "{method} {path}: {message}");
        let other = if method == "GET" { "DELETE" } else { "PATCH" };
        assert_eq!(api.send(other, &path, &headers, "").await.error(), (405, "UNSUPPORTED"), "{other} {path}");
    }
    assert_eq!(api.get("openapi.json").await.json, document);
}

/// Says what of a value is not as its schema has it.
fn check(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.strip_prefix("#/components/schemas/").unwrap();
        return check(document, &document["components"]["schemas"][name], value, at);
    }
    if let Some(ways) = schema["oneOf"].as_array() {
        let failed: Vec<String> = ways.iter().filter_map(|way| check(document, way, value, at).err()).collect();
        return if failed.len() + 1 == ways.len() { Ok(()) } else { Err(format!("{at}: one of {failed:?}")) };
    }
    if schema["const"].is_string() && schema["const"] != *value {
        return Err(format!("{at}: {value} is not {}", schema["const"]));
    }
    if schema["enum"].as_array().is_some_and(|accepted| !accepted.contains(value)) {
        return Err(format!("{at}: {value} is none of {}", schema["enum"]));
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !types.is_empty() && !types.contains(&found) {
        return Err(format!("{at}: {value} is no {types:?}"));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        check(document, &schema["items"], item, &format!("{at}[{index}]"))?;
    }
    let Some(fields) = value.as_object() else { return Ok(()) };
    let properties = schema["properties"].as_object();
    for needed in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        fields.get(needed).ok_or(format!("{at}: {needed} is missing"))?;
    }
    for (name, field) in fields {
        let known = properties.and_then(|properties| properties.get(name));
        match known.or(schema.get("additionalProperties")) {
            Some(schema) => check(document, schema, field, &format!("{at}.{name}"))?,
            None if properties.is_none() => {}
            None => return Err(format!("{at}: {name} is not told")),
        }
    }
    Ok(())
}

#[tokio::test]
async fn answers_are_what_the_document_says() {
    let (api, document) = (Api::new(), document());
    let (image, layer) = api.image("team/app", Some("latest"), &[1; 300]).await;
    let (old, _) = api.image("team/app", Some("old"), &[2; 300]).await;
    let (child, _) = api.image("team/app", None, &[3; 300]).await;
    let child_len =
        api.get(&format!("manifests?repository=team/app&digest={child}")).await.json["manifests"][0]["size"].clone();
    let children = json!([{ "mediaType": IMAGE, "digest": child, "size": child_len }]);
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": children });
    api.manifest("team/app", Some("all"), INDEX, &index).await;
    api.image("solo", None, &[4; 300]).await;
    let lonely = api.blob("solo", b"lonely").await;
    api.delete("team/app", "old").await;
    let solo = api.get("manifests?repository=solo").await.json;
    api.delete("solo", solo["manifests"][0]["digest"].as_str().unwrap()).await;

    let team = json!({ "repository": "team/app" });
    let gets = [
        "usage",
        "usage?organization=team",
        "usage?repository=team/app",
        "usage/history",
        "organizations",
        "repositories",
        "manifests?repository=team/app&own=true",
        "manifests?repository=solo",
        "history?repository=team/app",
        "top",
        "top?organization=team&n=1",
        "top?repository=team/app",
        &format!("blobs/{layer}"),
        &format!("blobs/{image}?repository=team/app&search=true"),
        &format!("blobs/{lonely}"),
        &format!("why?digest={layer}"),
        &format!("why?digest={old}"),
        &format!("why?digest={child}&repository=team/app"),
        &format!("why?digest={lonely}"),
        "why?repository=team/app&reference=all",
        "collect",
        "segments",
        "status",
        "scrub",
        "doctor",
        "quotas",
        "quotas?repository=team/app",
    ];
    for owner in [json!({ "organization": "team" }), json!({ "repository": "team/app" })] {
        for limit in [json!(1_000_000), json!(1), json!(null), json!(1_000_000)] {
            let mut quota = owner.clone();
            quota["limit_bytes"] = limit;
            conforms(&api, &document, "put", "quotas", Some(quota)).await;
        }
    }
    for path in gets {
        conforms(&api, &document, "get", path, None).await;
    }
    let posts = [
        ("what-if", team.clone()),
        ("what-if", json!({ "repository": "team/app", "tags": ["latest", "all"] })),
        ("what-if", json!({ "repository": "team/app", "digests": [child, image] })),
        ("restore", json!({ "repository": "team/app", "digest": old, "tag": "old" })),
        ("restore", json!({ "repository": "team/app", "digest": old })),
        ("collect?dry_run=true", json!({})),
        ("collect?dry_run=true", json!({ "free_bytes": 1 })),
        ("purge?dry_run=true", json!({ "organization": "_" })),
        ("purge", json!({ "repository": "solo" })),
        ("collect", json!({ "free_bytes": 1_000_000_000 })),
        ("collect", json!({})),
        ("compact?dry_run=true", json!({})),
        ("compact", json!({})),
        ("pause", json!({ "what": "compact" })),
        ("resume", json!({ "what": "compact" })),
        ("verify", json!({ "content": true })),
        ("pause", json!({ "what": "scrub" })),
        ("resume", json!({ "what": "scrub" })),
        ("scrub", json!({})),
    ];
    for (path, body) in posts {
        conforms(&api, &document, "post", path, Some(body)).await;
    }
    for path in ["collect", "verify", "scrub", "status", &format!("blobs/{layer}?search=true")] {
        conforms(&api, &document, "get", path, None).await;
    }
}

#[tokio::test]
async fn answers_about_policies_are_what_the_document_says() {
    let (api, document) = (Api::new(), document());
    api.image("team/app", Some("latest"), &[1; 300]).await;
    api.image("team/app", Some("old"), &[2; 300]).await;
    api.image("solo", Some("latest"), &[3; 300]).await;
    let all = json!({
        "pattern": "team/**", "tag_pattern": ["*", "!all"], "keep_newest": 1, "older_than": "1s", "not_pulled_for": "2h",
        "immutable": ["v*"], "held_for": "1h", "never_tagged_for": "1s",
    });
    let policies = [
        ("put", "policies/ci?dry_run=true", Some(all.clone())),
        ("put", "policies/ci", Some(all.clone())),
        ("put", "policies/solo?yes=true", Some(json!({ "pattern": "solo", "size_max_bytes": 1, "immutable": true }))),
        ("get", "policies", None),
        ("get", "policies/explain?repository=team/app", None),
        ("get", "policies/explain?repository=solo", None),
        ("get", "policies/explain?repository=nothing", None),
        ("post", "policies/ci/confirm", Some(json!({}))),
        ("post", "what-if", Some(json!({ "policy": { "name": "x", "pattern": "**", "keep_newest": 1 } }))),
        ("delete", "policies/ci", None),
        ("delete", "policies/solo", None),
    ];
    for (method, path, body) in policies {
        conforms(&api, &document, method, path, body).await;
    }
}

/// The answer has the status 200 and what the document says of it; a refusal is told there, too.
async fn conforms(api: &Api, document: &Value, method: &str, path: &str, body: Option<Value>) {
    let answer = match body {
        Some(body) => api.order(&method.to_uppercase(), path, body).await,
        None if method == "delete" => api.order("DELETE", path, json!(null)).await,
        None => api.get(path).await,
    };
    assert_eq!(answer.status, 200, "{path}: {}", answer.message());
    assert_eq!(answer.headers["content-type"], "application/json", "{path}");
    let route = path.split('?').next().unwrap();
    let route = match route.split('/').collect::<Vec<_>>()[..] {
        ["blobs", _] => "blobs/{digest}",
        ["policies", name] if name != "explain" => "policies/{name}",
        ["policies", _, "confirm"] => "policies/{name}/confirm",
        _ => route,
    };
    let responses = &document["paths"][format!("/api/v1/{route}")][method]["responses"];
    let schema = &responses["200"]["content"]["application/json"]["schema"];
    assert!(schema.is_object(), "{path}");
    check(document, schema, &answer.json, path).unwrap_or_else(|wrong| panic!("{wrong}\n{:#}", answer.json));
}

#[tokio::test]
async fn heads_are_answered_like_gets() {
    let api = Api::new();
    for path in ["/api/v1/openapi.json", "/api/v1/usage", "/api/v1/organizations?n=1"] {
        let head = api.send("HEAD", path, &[("host", "127.0.0.1")], "").await;
        assert_eq!((head.status, &head.headers["content-type"]), (200, &"application/json".parse().unwrap()), "{path}");
    }
    assert_eq!(api.send("HEAD", "/api/v1/purge", &[("host", "127.0.0.1")], "").await.status, 405);
}
