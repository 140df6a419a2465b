//! The embedding example as it stands: its own route and a create through the mounted gateway.

use axum::body::Body;
use ayova::clock::{Clock as _, SystemClock, iso8601};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

#[expect(dead_code, unreachable_pub, reason = "written as a program, of which a test needs a part")]
#[path = "../../examples/embed.rs"]
mod example;

async fn call(router: &axum::Router, request: Request<Body>) -> (StatusCode, http::HeaderMap, String) {
    let response = router.clone().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn the_example_serves_its_own_route_and_creates_an_account() {
    let (config, transport) = example::over_a_simulator().unwrap();
    let router = example::app(example::gateway(&config, transport).unwrap());
    let own = Request::get("/orders/today").body(Body::empty()).unwrap();
    assert_eq!(call(&router, own).await.2, "two orders\n");
    let tomorrow = iso8601(SystemClock.now() + jiff::SignedDuration::from_hours(24));
    let body = format!(
        r#"{{"customerNo":"CUST000123","virtualAccountNo":"12345678901","virtualAccountName":"Budi Santoso","trxId":"7f3b1c9e5a2d4f608b1e3c7a9d5f2b41","totalAmount":{{"value":"150000.00","currency":"IDR"}},"expiredDate":"{tomorrow}","additionalInfo":{{"bankCode":"014","isSingleUse":"N"}}}}"#
    );
    let create = || {
        let request = Request::post("/va/api/v2.0/transfer-va/create-va").header("Idempotency-Key", "order-1");
        request.header("Content-Type", "application/json").body(Body::from(body.clone())).unwrap()
    };
    let (status, headers, created) = call(&router, create()).await;
    assert_eq!((status, &headers["ayova-source"]), (StatusCode::OK, &"upstream".parse().unwrap()), "{created}");
    assert!(created.contains("1462912345678901"), "{created}");
    let (_, headers, again) = call(&router, create()).await;
    assert_eq!((&headers["ayova-source"], again), (&"replay".parse().unwrap(), created));
}
