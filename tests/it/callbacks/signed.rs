//! Callbacks that are signed, and those that should be: sandbox, receiver, inbox, app.
//!
//! Promises that a right signature confirms a payment, and that whatever else comes is kept aside.

use ayova::config::CallbackKey;
use ayova::config::sandbox::CALLBACK_PUBLIC_PEM;
use ayova::signature::{Encoding, HmacKey, PublicKey, SignedRequest, StringToSign, body_hash};

use super::*;
use crate::gateway_secrecy::Lines;

impl Circle {
    /// Posts a SNAP callback with a signature of that time.
    async fn call_signed(&self, body: &str, secret: &str, timestamp: &str) -> (u16, String) {
        let (path, hash) = (snap_path(), body_hash(body.as_bytes()));
        let signed = SignedRequest { method: "POST", path: &path, body_hash: &hash, timestamp };
        let signature = HmacKey::new(secret.as_bytes()).sign(&StringToSign::hmac_sha512(&signed, ""), Encoding::Base64);
        let request = Request::builder().method("POST").uri(&path);
        let request = request.header("X-TIMESTAMP", timestamp).header("X-SIGNATURE", signature);
        self.ask(request.body(Full::from(body.to_owned())).unwrap()).await.unwrap()
    }
}

/// The gateway checks with the key whose other half the sandbox signs with.
fn by_rsa() -> Verify {
    let key = Arc::new(PublicKey::from_pem(CALLBACK_PUBLIC_PEM).unwrap());
    Verify::RsaTransactional(CallbackKey { key, pem: CALLBACK_PUBLIC_PEM.into() })
}

#[tokio::test(start_paused = true)]
async fn a_right_signature_is_all_the_confirmation_a_payment_of_either_generation_needs() {
    for (verify, sign) in
        [(Verify::HmacSha512, CallbackSigning::HmacSha512), (by_rsa(), CallbackSigning::RsaTransactional)]
    {
        let circle = Circle::over(memory(), verify, sign).await;
        let number = circle.account(1).await;
        circle.pay("virtualAccountNo", &number).await;
        let created = circle.world.send(classic_create(2, "12345678")).await.expect(201).json();
        let classic = created["virtualAccountData"]["virtualAccountNumber"].as_str().unwrap().to_owned();
        circle.pay("virtualAccountNumber", &classic).await;
        seconds(5).await;
        let taken = circle.taken();
        let confirmed: Vec<_> =
            taken.iter().map(|(_, event)| (&event["data"]["dialect"], &event["data"]["confirmed"])).collect();
        assert_eq!(confirmed, [(&json!("snap"), &json!(true)), (&json!("classic"), &json!(true))], "{sign:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_signs_otherwise_ends_in_quarantine() {
    for (verify, sign) in [
        (Verify::HmacSha512, CallbackSigning::None),
        (Verify::HmacSha512, CallbackSigning::RsaTransactional),
        (by_rsa(), CallbackSigning::HmacSha512),
    ] {
        let circle = Circle::over(memory(), verify, sign).await;
        let number = circle.account(1).await;
        circle.pay("virtualAccountNo", &number).await;
        seconds(3_600).await;
        assert_eq!((circle.listed(State::Quarantined).await.len(), circle.attempts()), (1, 0), "{sign:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_signed_is_acknowledged_kept_aside_and_blocks_nothing() {
    let log = Lines::capture();
    let circle = Circle::over(memory(), Verify::HmacSha512, CallbackSigning::None).await;
    let (now, body) = ("2026-01-05T10:00:00+07:00", body("   1462912345678901", "T1"));
    let good = (200, r#"{"responseCode":"2003400","responseMessage":"Successful"}"#.to_owned());
    assert_eq!(circle.call("POST", &snap_path(), &body).await.as_ref(), Some(&good));
    assert_eq!(circle.call_signed(&body, "another-secret", now).await, good);
    assert_eq!(circle.call_signed(&body, "sandbox-secret", "2026-01-05T09:54:00+07:00").await, good);
    let list = circle.world.admin("/callbacks?state=quarantined").await;
    let shown = list.json()["callbacks"].clone();
    let reasons: Vec<_> = shown.as_array().unwrap().iter().map(|one| one["last"].as_str().unwrap()).collect();
    for (reason, expected) in reasons.iter().rev().zip(["not signed", "does not fit", "more than 5 minutes"]) {
        assert!(reason.contains(expected), "{reasons:?}");
    }
    assert_eq!((reasons.len(), &shown[0]["number"]), (3, &json!("****8901")));
    assert!(!list.text().contains(SECRET) && !list.text().contains("1462912345678901"), "{}", list.text());
    let series = r#"ayova_callbacks_received_total{merchant="sample",dialect="snap",result="quarantined"}"#;
    assert_eq!(circle.world.metric(series).await, 3.0);
    let replay = format!("/callbacks/{}/replay", shown[0]["id"].as_str().unwrap());
    assert_eq!(circle.world.admin_post(&replay, Value::Null).await.status, 409);
    seconds(5).await;
    assert_eq!(circle.attempts(), 0);
    assert_eq!(circle.call_signed(&body, "sandbox-secret", now).await, good);
    seconds(5).await;
    let taken = circle.taken();
    assert_eq!((taken.len(), &taken[0].1["data"]["confirmed"]), (1, &json!(true)));
    let log = log.text();
    assert_eq!(log.matches("a callback is kept in quarantine").count(), 3, "{log}");
    for hidden in [SECRET, "1462912345678901", "sandbox-secret", "/callbacks/snap/"] {
        assert!(!log.contains(hidden), "{hidden}: {log}");
    }
}
