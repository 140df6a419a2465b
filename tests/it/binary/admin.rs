//! The operator's pages over a socket: all of them answer, and what they know is masked.

use super::{Answer, CREATE_BODY, CREATE_PATH, Gateway, Sandbox, ask, get, request};

#[tokio::test]
async fn every_page_answers_and_others_are_told_which_there_are() {
    let sandbox = Sandbox::start().await;
    let gateway = Gateway::before(&sandbox).await;
    for page in ["/livez", "/readyz", "/config", "/routes", "/status"] {
        let answer = get(&gateway.admin, page).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{page}");
        assert!(answer.json().is_object());
    }
    let scraped = get(&gateway.admin, "/metrics").await;
    assert_eq!(scraped.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(scraped.body.contains("ayova_build_info"), "{}", scraped.body);
    let nowhere = get(&gateway.admin, "/metric").await;
    assert_eq!(nowhere.status, 404);
    assert!(nowhere.json()["pages"].as_array().unwrap().iter().any(|page| page == "/metrics"), "{nowhere:?}");
    // The app's listener is not the operator's, nor the other way round.
    assert_eq!(get(&gateway.listen, "/metrics").await.status, 404);
    assert_eq!(ask(&gateway.admin, &request("POST", CREATE_PATH, "", CREATE_BODY)).await.status, 405);
    let refused = ask(&gateway.admin, &request("DELETE", "/config", "", "")).await;
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")));
}

#[tokio::test]
async fn what_is_known_of_an_account_is_shown_without_its_number() {
    let sandbox = Sandbox::start().await;
    let gateway = Gateway::before(&sandbox).await;
    let id = "a".repeat(32);
    let headers = format!("X-EXTERNAL-ID: {id}\r\n");
    let created = ask(&gateway.listen, &request("POST", CREATE_PATH, &headers, CREATE_BODY)).await;
    assert_eq!(created.status, 200, "{created:?}");
    for form in ["1462912345678901", "%20%20%201462912345678901"] {
        let page = get(&gateway.admin, &format!("/references/{form}")).await;
        let account = &page.json()["accounts"][0];
        assert_eq!((&account["number"], &account["referenceNo"]), (&"****8901".into(), &id.as_str().into()), "{form}");
        assert!(!page.body.contains("12345678901") && !page.body.contains("Budi"), "{}", page.body);
    }
    for known in [id.as_str(), "7f3b1c9e5a2d4f608b1e3c7a9d5f2b41"] {
        let page = get(&gateway.admin, &format!("/idempotency/{known}")).await;
        let entry = &page.json()["known"][0];
        assert_eq!((&entry["state"], &entry["status"]), (&"answered".into(), &200.into()), "{}", page.body);
        assert!(!page.body.contains("12345678901") && !page.body.contains("Budi"), "{}", page.body);
    }
    let by_key = r#"{"virtualAccountNo":"1462912345678901"}"#;
    let inquiry = request("POST", "/va/api/v2.0/transfer-va/inquiry-va", "Idempotency-Key: look\r\n", by_key);
    assert_eq!(ask(&gateway.listen, &inquiry).await.status, 200);
    let other = CREATE_BODY.replace("7f3b1c9e", "00000000").replace("12345678901", "12345678902");
    let create = request("POST", CREATE_PATH, "Idempotency-Key: order 2\r\n", &other);
    assert_eq!(ask(&gateway.listen, &create).await.status, 200);
    let page = get(&gateway.admin, "/idempotency/order%202").await;
    assert_eq!(page.json()["known"][0]["operation"], "snap.create", "{}", page.body);
    // A read is not remembered.
    assert_eq!(get(&gateway.admin, "/idempotency/look").await.status, 404);
    for unknown in ["/references/1", "/idempotency/1"] {
        let Answer { status, .. } = get(&gateway.admin, unknown).await;
        assert_eq!(status, 404, "{unknown}");
    }
}
