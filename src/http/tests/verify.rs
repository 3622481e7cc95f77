//! Verifications over HTTP: one at a time, told how far they are, ended when nobody waits for them.

use std::sync::Arc;

use super::*;

const JSON: [(&str, &str); 2] = [("host", "localhost"), ("content-type", "application/json")];

impl Client {
    async fn verify(&self, body: &str) -> Answer {
        self.ask("POST", "/api/v1/verify", &JSON, body).await
    }

    async fn far(&self) -> Value {
        let answer = self.ask("GET", "/api/v1/verify", &JSON[..1], "").await;
        assert_eq!(answer.status, 200);
        answer.json()
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let (parts, body) = exchange(&self.app, method, path, headers, Body::from(body.to_owned())).await;
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }
}

/// A registry with a blob that takes seconds to be read.
async fn slow_client() -> (Client, Arc<App>) {
    let (mut app, disk) = app();
    app.limits.verify_bytes_per_second = 300_000;
    let app = Arc::new(app);
    let client = Client { app: Arc::clone(&app), disk };
    client.push("team/app", &content(2_900_000)).await;
    (client, app)
}

async fn until(client: &Client, running: bool) {
    let began = std::time::Instant::now();
    while client.far().await["running"] != running {
        assert!(began.elapsed() < Duration::from_secs(8), "it does not end, or begin");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_sound_store_is_told_with_what_was_looked_at() {
    let client = client();
    let config = client.push("team/app", &content(1_000)).await;
    let manifest = image(&config, 1_000);
    let path = "/v2/team/app/manifests/latest";
    assert_eq!(client.send("PUT", path, &[("content-type", MANIFEST_TYPE)], manifest.clone()).await.status, 201);
    for (body, content_bytes) in [("", 0), ("{}", 0), (r#"{"content":true}"#, 1_000 + manifest.len())] {
        let answer = client.verify(body).await;
        assert_eq!(answer.status, 200, "{body}");
        let report = answer.json();
        assert_eq!(report["findings"], json!([]));
        let numbers =
            ["manifests", "records", "segments", "findings_more"].map(|field| report[field].as_u64().unwrap());
        assert_eq!(
            (numbers, report["content_bytes"].as_u64().unwrap()),
            ([1, 2, 1, 0], content_bytes as u64),
            "{body}"
        );
    }
    assert_eq!(client.far().await, json!({ "running": false, "phase": null, "done": null, "total": null }));
}

#[tokio::test]
async fn what_is_not_accepted_is_refused() {
    let client = client();
    for body in ["[]", r#"{"content":1}"#, r#"{"contents":true}"#, "{"] {
        assert_eq!(client.verify(body).await.outcome(), (400, "UNSUPPORTED".to_owned()), "{body}");
    }
    for (method, path, headers, status) in [
        ("POST", "/api/v1/verify?content=true", &JSON[..], 400),
        ("GET", "/api/v1/verify?n=1", &JSON[..1], 400),
        ("POST", "/api/v1/verify", &JSON[..1], 415),
        ("POST", "/api/v1/verify", &[("host", "example.com"), JSON[1]], 403),
        ("PUT", "/api/v1/verify", &JSON[..], 405),
    ] {
        assert_eq!(client.ask(method, path, headers, "").await.status, status, "{method} {path} {headers:?}");
    }
    let answer = client.ask("PUT", "/api/v1/verify", &JSON, "").await;
    assert_eq!(answer.header("allow"), "GET, HEAD, POST");
}

#[tokio::test]
async fn a_second_one_is_refused_while_one_runs_and_that_one_tells_how_far_it_is() {
    let (client, _) = slow_client().await;
    let client = Arc::new(client);
    let first = Arc::clone(&client);
    let first = tokio::spawn(async move { first.verify(r#"{"content":true}"#).await });
    until(&client, true).await;
    while client.far().await["phase"] != "content" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let far = client.far().await;
    assert_eq!(far["total"], 2_900_000);
    assert!(far["done"].as_u64().unwrap() < 2_900_000, "{far}");
    assert_eq!(client.verify("{}").await.outcome(), (409, "UNSUPPORTED".to_owned()));
    first.abort();
}

#[tokio::test]
async fn it_ends_when_its_client_goes_away_and_makes_place_for_another() {
    let (client, _) = slow_client().await;
    let client = Arc::new(client);
    let first = Arc::clone(&client);
    let first = tokio::spawn(async move { first.verify(r#"{"content":true}"#).await });
    until(&client, true).await;
    first.abort();
    until(&client, false).await;
    assert_eq!(client.verify("{}").await.status, 200);
}

#[tokio::test]
async fn it_ends_when_the_server_shuts_down() {
    let (client, app) = slow_client().await;
    let client = Arc::new(client);
    let first = Arc::clone(&client);
    let first = tokio::spawn(async move { first.verify(r#"{"content":true}"#).await });
    until(&client, true).await;
    let began = std::time::Instant::now();
    app.end_long_work();
    let first = tokio::time::timeout(Duration::from_secs(8), first).await;
    assert_eq!(first.unwrap().unwrap().status, 503);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn counting_that_takes_too_much_memory_is_refused_with_what_else_can_be_done() {
    let (mut app, disk) = app();
    app.limits.verify_memory_bytes = 1_000;
    let client = Client { app: Arc::new(app), disk };
    client.push("team/app", &content(1_000)).await;
    let answer = client.verify("{}").await;
    assert_eq!(answer.status, 413);
    assert!(String::from_utf8_lossy(&answer.body).contains("orlop verify --data"));
}
