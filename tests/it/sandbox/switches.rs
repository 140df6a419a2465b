//! Every switch: what the simulator does by default, and what it does when told otherwise.
//!
//! Promises one run per switch that ends differently from the default's run of the same calls.

use std::time::Duration;

use ayova::config::SandboxConfig;
use ayova::config::sandbox::{
    Bank, ClassicNumberRules, ClassicState, IdempotencyMode, MemberPlace, NumberShape, PaidAmountShape, PhoneRule,
    ReferencePlace, ServiceCodeProfile, UpdateMethod,
};
use ayova::signature::{Encoding, Scheme};
use http::Method;
use serde_json::{Value, json};

use super::client::{BASE, Client, Reply, fresh, switched};
use super::{classic_create, classic_update, snap_create, snap_inquiry, snap_update};

/// The code of a SNAP create with some members set.
async fn create_code(client: &Client, set: &[(&str, Value)]) -> String {
    let mut body = snap_create();
    for (pointer, value) in set {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        body.pointer_mut(parent).unwrap()[name] = value.clone();
    }
    code(&client.snap("create", &body).await)
}

fn code(reply: &Reply) -> String {
    reply.json()["responseCode"].as_str().unwrap().to_owned()
}

/// The status of a classic create with some members set, and its account.
async fn classic(client: &Client, set: &[(&str, Value)]) -> (u16, Value) {
    let mut body = classic_create();
    for (pointer, value) in set {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        body.pointer_mut(parent).unwrap()[name] = value.clone();
    }
    let reply = client.classic_create(&body).await;
    (reply.status, reply.json()["virtualAccountData"].clone())
}

async fn classic_changed(client: &Client, data: &Value, name: &str, value: Value) -> Reply {
    let mut body = classic_update(data);
    body[name] = value;
    client.classic_update(&data["correlationId"], &body).await
}

fn money(value: &str) -> Value {
    json!({"value": value, "currency": "IDR"})
}

// === classic ===

#[tokio::test(start_paused = true)]
async fn classic_paths() {
    let client = switched(|config| {
        config.classic.base_path = "/api/v9".to_owned();
        config.classic.token_path = "/token".to_owned();
    });
    assert_eq!(client.send(client.classic_login_request()).await.status, 404);
    let mut login = client.classic_login_request();
    "/token?grant_type=client_credentials".clone_into(&mut login.path);
    let reply = client.send(login).await;
    let token = reply.json()["accessToken"].as_str().unwrap().to_owned();
    let mut outgoing = client.classic_request(Method::POST, &token, &classic_create());
    assert_eq!(client.send(outgoing.clone()).await.status, 404);
    "/api/v9/virtualAccount".clone_into(&mut outgoing.path);
    assert_eq!(client.send(outgoing).await.status, 201);
}

#[tokio::test(start_paused = true)]
async fn token_lives() {
    let client = switched(|config| {
        config.classic.token_life = Duration::from_secs(60);
        config.snap.token_life = Duration::from_secs(90);
    });
    assert_eq!(client.send(client.classic_login_request()).await.json()["expiresIn"], "60");
    assert_eq!(client.send(client.snap_login_request()).await.json()["expiresIn"], "90");
    let (classic, snap) = (client.classic_login().await, client.snap_login().await);
    tokio::time::advance(Duration::from_secs(60)).await;
    let reply = client.send(client.classic_request(Method::POST, &classic, &classic_create())).await;
    assert_eq!(reply.status, 401);
    let send = || {
        let mut outgoing = client.snap_request("create", &snap, &snap_create());
        client.sign(&mut outgoing);
        client.send(outgoing)
    };
    assert_eq!(send().await.status, 200);
    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(send().await.status, 401);
}

#[tokio::test(start_paused = true)]
async fn classic_validation_status() {
    for (status, message) in [(503, "service.unavailable"), (412, "precondition.failed"), (400, "bad.request")] {
        let client = switched(|config| config.classic.validation_status = status);
        let reply = client.classic_create(&json!({})).await;
        assert_eq!((reply.status, reply.json()["responseMessage"].clone()), (status, json!(message)));
        assert_eq!(reply.json()["responseCode"], status);
    }
}

#[tokio::test(start_paused = true)]
async fn classic_update_body_code() {
    for code in [201, 200] {
        let client = switched(|config| config.classic.update_body_code = code);
        let (_, data) = classic(&client, &[]).await;
        let reply = client.classic_update(&data["correlationId"], &classic_update(&data)).await;
        assert_eq!((reply.status, reply.json()["responseCode"].clone()), (200, json!(code)));
    }
}

#[tokio::test(start_paused = true)]
async fn classic_amount_type_change() {
    for allowed in [false, true] {
        let client = switched(|config| config.classic.allow_amount_type_change = allowed);
        let (_, closed) = classic(&client, &[]).await;
        let reply = classic_changed(&client, &closed, "totalAmount", money("0.00")).await;
        assert_eq!(reply.status, if allowed { 200 } else { 503 }, "{}", reply.text());
        let reply = client.pay(&closed["virtualAccountNumber"], "5.00").await;
        assert_eq!(reply.json()["paid"], allowed);
        let (_, open) = classic(&client, &[("/virtualAccountConfig/amountType", json!("open"))]).await;
        let reply = classic_changed(&client, &open, "totalAmount", money("7.00")).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        // Closed now, so that only the exact amount is taken; or still open.
        let reply = client.pay(&open["virtualAccountNumber"], "5.00").await;
        assert_eq!(reply.json()["paid"], !allowed);
    }
}

#[tokio::test(start_paused = true)]
async fn classic_bni_type_change() {
    for allowed in [false, true] {
        let client = switched(|config| config.classic.allow_bni_type_change = allowed);
        let set = [("/bankCode", json!("009")), ("/virtualAccountConfig/amountType", json!("open"))];
        let (_, data) = classic(&client, &set).await;
        let reply = classic_changed(&client, &data, "virtualAccountType", json!("static")).await;
        assert_eq!(reply.status, if allowed { 200 } else { 503 }, "{}", reply.text());
    }
}

#[tokio::test(start_paused = true)]
async fn classic_updatable_states() {
    for revives in [false, true] {
        let client = switched(|config| {
            if revives {
                config.classic.updatable_states.push(ClassicState::Expired);
            }
        });
        let (_, data) = classic(&client, &[("/expiresIn", json!(5))]).await;
        client.advance("5m").await;
        let reply = classic_changed(&client, &data, "expiresIn", json!(60)).await;
        assert_eq!(reply.status, if revives { 200 } else { 503 }, "{}", reply.text());
        let shown = client.classic_get(&data, "002").await.data();
        assert_eq!(shown["virtualAccountStatus"], if revives { "UNUSED" } else { "EXPIRED" });
        if revives {
            assert_eq!(shown["expiredAt"], "2026-01-05T11:05:00+07:00");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn classic_number_rules() {
    let long = [("/virtualAccountNumber", json!("12345678901"))];
    let client = fresh();
    assert_eq!(classic(&client, &long).await.0, 201);
    let client = switched(|config| config.classic.number_rules = ClassicNumberRules::Newer);
    assert_eq!(classic(&client, &long).await.0, 503);
    assert_eq!(classic(&client, &[("/virtualAccountNumber", json!("1234567890"))]).await.0, 201);
    assert_eq!(classic(&client, &[]).await.0, 201);
}

#[tokio::test(start_paused = true)]
async fn classic_initial_state() {
    let client = switched(|config| {
        config.classic.initial_state = [(Bank::Bri, ClassicState::Inquired)].into();
    });
    assert_eq!(classic(&client, &[]).await.1["virtualAccountStatus"], "INQUIRED");
    let bni = [("/bankCode", json!("009"))];
    assert_eq!(classic(&client, &bni).await.1["virtualAccountStatus"], "UNUSED");
    assert_eq!(classic(&fresh(), &bni).await.1["virtualAccountStatus"], "INQUIRED");
}

#[tokio::test(start_paused = true)]
async fn classic_strict_flow() {
    for strict in [true, false] {
        let client = switched(|config| config.classic.strict_flow = strict);
        let (_, mut data) = classic(&client, &[]).await;
        data["correlationId"] = json!("ffffffffffffffffffffffffffffffff");
        let expected = if strict { 503 } else { 200 };
        assert_eq!(client.classic_get(&data, "002").await.status, expected);
        let reply = client.classic_update(&data["correlationId"], &classic_update(&data)).await;
        assert_eq!(reply.status, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn classic_paid_to_inquired() {
    for returns in [false, true] {
        let client = switched(|config| config.classic.paid_to_inquired = returns);
        let (_, data) = classic(&client, &[("/virtualAccountConfig/virtualAccountType", json!("static"))]).await;
        let number = &data["virtualAccountNumber"];
        assert_eq!(client.pay(number, "150000.00").await.json()["status"], "PAID");
        let reply = client.post("/inquire", json!({"virtualAccountNumber": number})).await;
        assert_eq!(reply.json()["status"], if returns { "INQUIRED" } else { "PAID" });
    }
}

#[tokio::test(start_paused = true)]
async fn classic_min_closed_amount() {
    let small = [("/totalAmount/value", json!("9999.00"))];
    assert_eq!(classic(&fresh(), &small).await.0, 201);
    assert_eq!(classic(&fresh(), &[("/totalAmount/value", json!("0.00"))]).await.0, 503);
    let client = switched(|config| config.classic.min_closed_amount = Some(1_000_000));
    assert_eq!(classic(&client, &small).await.0, 503);
    let (_, data) = classic(&client, &[]).await;
    let reply = classic_changed(&client, &data, "totalAmount", money("9999.00")).await;
    assert_eq!(reply.status, 503);
}

// === SNAP ===

#[tokio::test(start_paused = true)]
async fn snap_paths_and_methods() {
    let client = switched(|config| {
        config.snap.base_paths.push("/api/v1.0".to_owned());
        config.snap.token_path = "/login".to_owned();
        config.snap.update_methods = vec![UpdateMethod::Post];
    });
    let mut login = client.snap_login_request();
    "/login".clone_into(&mut login.path);
    assert_eq!(client.send(login).await.status, 200);
    let mut data = Value::Null;
    for base in [BASE, "/api/v1.0"] {
        let path = format!("{base}/transfer-va/create-va");
        let reply = client.snap_changed("create", &snap_create(), |outgoing| path.clone_into(&mut outgoing.path)).await;
        data = reply.data();
    }
    let body = snap_update(&data);
    assert_eq!(client.snap("update", &body).await.status, 405);
    let reply = client.snap_changed("update", &body, |outgoing| outgoing.method = Method::POST).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    // By default both methods exist.
    let client = fresh();
    let data = client.snap("create", &snap_create()).await.data();
    for method in [Method::PUT, Method::POST] {
        let reply = client.snap_changed("update", &snap_update(&data), |outgoing| outgoing.method = method).await;
        assert_eq!(reply.status, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn snap_service_codes() {
    let client = switched(|config| config.snap.service_code_profile = ServiceCodeProfile::AyoconnectErrorsPage);
    let reply = client.snap("create", &snap_create()).await;
    assert_eq!(code(&reply), "2002400");
    assert_eq!(code(&client.snap("create", &json!({})).await), "4002402");
    assert_eq!(code(&client.snap("update", &snap_update(&reply.data())).await), "2002500");
    assert_eq!(code(&client.snap("inquiry", &snap_inquiry(&reply.data())).await), "2002400");
    assert_eq!(code(&client.send(client.snap_login_request()).await), "2007300");
}

#[tokio::test(start_paused = true)]
async fn snap_token_answer() {
    let client = switched(|config| {
        config.snap.token_success_code = "2001000".to_owned();
        config.snap.expires_in_type = NumberShape::Number;
    });
    let reply = client.send(client.snap_login_request()).await;
    assert_eq!((code(&reply).as_str(), &reply.json()["expiresIn"]), ("2001000", &json!(3600)));
}

#[tokio::test(start_paused = true)]
async fn snap_signature_schemes_and_encodings() {
    let schemes = [Scheme::HmacSha512, Scheme::RsaClientTimestamp, Scheme::RsaTransactional];
    let encodings = [Encoding::Hex, Encoding::Base64];
    for scheme in schemes {
        for accept in [vec![Encoding::Hex], vec![Encoding::Base64], encodings.to_vec()] {
            let mut client = switched(|config| {
                config.snap.signature.scheme = scheme;
                config.snap.signature.accept.clone_from(&accept);
            });
            for (used, encoding) in schemes.into_iter().flat_map(|used| encodings.map(|encoding| (used, encoding))) {
                (client.scheme, client.encoding) = (used, encoding);
                let status = client.snap("create", &snap_create()).await.status;
                let good = used == scheme && accept.contains(&encoding);
                assert_eq!(status, if good { 200 } else { 401 }, "{scheme:?} {accept:?}: {used:?} {encoding:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn snap_require_total_amount() {
    let mut body = snap_create();
    body.as_object_mut().unwrap().remove("totalAmount");
    let client = switched(|config| config.snap.require_total_amount = true);
    let reply = client.snap("create", &body).await;
    assert_eq!(reply.json()["responseMessage"], "Invalid Mandatory Field {totalAmount}");
    let data = fresh().snap("create", &body).await.data();
    assert_eq!(data["totalAmount"]["value"], "0.00");
}

#[tokio::test(start_paused = true)]
async fn snap_idempotency_window() {
    for (mode, next_day) in [(IdempotencyMode::Replay, 1), (IdempotencyMode::Conflict, 2)] {
        let client = switched(|config| config.snap.idempotency_mode = mode);
        let mut body = snap_create();
        body["expiredDate"] = json!("2026-01-09T10:00:00+07:00");
        let id = client.id();
        client.snap_as("create", &body, &id).await.data();
        tokio::time::advance(Duration::from_secs(86_400)).await;
        client.snap_as("create", &body, &id).await.data();
        let stats = client.look("/stats").await;
        assert_eq!((&stats["creates"], &stats["distinct_keys"]), (&json!(next_day), &json!(1)), "{mode:?}");
        assert_eq!(stats["duplicate_creates"], next_day - 1, "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn snap_phone_rule() {
    let phone = |digits: usize| [("/virtualAccountPhone", json!(format!("62{}", "8".repeat(digits - 2))))];
    let longer = switched(|config| config.snap.phone_rule = PhoneRule::AfterPrefix);
    for (digits, total, after_prefix) in [
        (9, false, false),
        (10, true, false),
        (12, true, true),
        (15, true, true),
        (17, false, true),
        (18, false, false),
    ] {
        assert_eq!(create_code(&fresh(), &phone(digits)).await == "2002700", total, "{digits}");
        assert_eq!(create_code(&longer, &phone(digits)).await == "2002700", after_prefix, "{digits}");
    }
    assert_eq!(create_code(&longer, &[("/virtualAccountPhone", json!(62))]).await, "4002701");
    assert_eq!(create_code(&longer, &[("/virtualAccountPhone", json!("081234567890"))]).await, "4002701");
}

#[tokio::test(start_paused = true)]
async fn snap_amount_bounds() {
    let small = [("/totalAmount/value", json!("9999.00"))];
    assert_eq!(create_code(&fresh(), &small).await, "4042713");
    let client = switched(|config| {
        config.snap.min_closed_amount = None;
        config.snap.min_open_amount = Some(100_000);
    });
    assert_eq!(create_code(&client, &small).await, "2002700");
    let mut body = snap_create();
    body["totalAmount"]["value"] = json!("0.00");
    for (client, paid) in [(client, false), (fresh(), true)] {
        let data = client.snap("create", &body).await.data();
        assert_eq!(client.pay(&data["virtualAccountNo"], "999.00").await.json()["paid"], paid);
    }
}

#[tokio::test(start_paused = true)]
async fn snap_places_in_answers() {
    for place in [ReferencePlace::VirtualAccountData, ReferencePlace::Top, ReferencePlace::AdditionalInfo] {
        let client = switched(|config| {
            config.snap.reference_place = place;
            config.snap.status_name = "vaStatus".to_owned();
            config.snap.latest_paid_amount = PaidAmountShape::String;
        });
        let id = client.id();
        let reply = client.snap_as("create", &snap_create(), &id).await;
        let data = reply.data();
        let found = [&data["referenceNo"], &reply.json()["referenceNo"], &data["additionalInfo"]["referenceNo"]]
            .map(|reference| reference == &json!(id));
        let expected = [ReferencePlace::VirtualAccountData, ReferencePlace::Top, ReferencePlace::AdditionalInfo]
            .map(|candidate| candidate == place);
        assert_eq!(found, expected, "{}", reply.text());
        assert_eq!((&data["vaStatus"], &data["virtualAccountStatus"]), (&json!("Active"), &Value::Null));
        client.pay(&data["virtualAccountNo"], "150000.00").await;
        let shown = client.snap("inquiry", &snap_inquiry(&data)).await.data();
        assert_eq!(shown["latestPaidAmount"], "150000.00");
    }
}

#[tokio::test(start_paused = true)]
async fn snap_places_in_requests() {
    let client = switched(|config| {
        config.snap.bank_code_place = MemberPlace::Top;
        config.snap.original_reference_place = MemberPlace::AdditionalInfo;
    });
    let reply = client.snap("create", &snap_create()).await;
    assert_eq!(reply.json()["responseMessage"], "Invalid Mandatory Field {bankCode}");
    let mut body = snap_create();
    body["additionalInfo"].as_object_mut().unwrap().remove("bankCode");
    body["bankCode"] = json!("009");
    let data = client.snap("create", &body).await.data();
    assert_eq!(data["partnerServiceId"], "    8662");
    let mut update = snap_update(&data);
    update["bankCode"] = json!("009");
    let reply = client.snap("update", &update).await;
    let message = "Invalid Mandatory Field {additionalInfo.originalReferenceNo}";
    assert_eq!(reply.json()["responseMessage"], message);
    let reference = update.as_object_mut().unwrap().remove("originalReferenceNo").unwrap();
    update["additionalInfo"]["originalReferenceNo"] = reference;
    assert_eq!(client.snap("update", &update).await.status, 200);
    assert_eq!(fresh().snap("create", &body).await.case(), "02");
}

#[tokio::test(start_paused = true)]
async fn snap_strict_trx_id() {
    for strict in [false, true] {
        let client = switched(|config| config.snap.strict_trx_id = strict);
        let data = client.snap("create", &snap_create()).await.data();
        let expected = if strict { 404 } else { 200 };
        for (operation, mut body) in [("update", snap_update(&data)), ("inquiry", snap_inquiry(&data))] {
            body["trxId"] = json!("00000000000000000000000000000000");
            let reply = client.snap(operation, &body).await;
            assert_eq!(reply.status, expected, "{}", reply.text());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn snap_configurable_cases() {
    let run = async |client: Client| {
        let mut body = snap_create();
        body["virtualAccountNo"] = json!("12345678901");
        let data = client.snap("create", &body).await.data();
        let active = client.snap("create", &body).await.case();
        let mut unknown = snap_inquiry(&data);
        unknown["virtualAccountNo"] = json!("   1462999999999999");
        let unknown = client.snap("inquiry", &unknown).await.case();
        client.pay(&data["virtualAccountNo"], "150000.00").await;
        let paid = client.snap("update", &snap_update(&data)).await.case();
        [active, unknown, paid]
    };
    assert_eq!(run(fresh()).await, ["12", "12", "14"]);
    let client = switched(|config| {
        config.snap.active_number_case = "18".to_owned();
        config.snap.unknown_number_case = "11".to_owned();
        config.snap.paid_update_case = "01".to_owned();
    });
    assert_eq!(run(client).await, ["18", "11", "01"]);
}

#[tokio::test(start_paused = true)]
async fn snap_open_closed_change() {
    for allowed in [false, true] {
        let client = switched(|config| config.snap.allow_open_closed_change = allowed);
        let data = client.snap("create", &snap_create()).await.data();
        let mut update = snap_update(&data);
        update["totalAmount"]["value"] = json!("0.00");
        let reply = client.snap("update", &update).await;
        assert_eq!(reply.case(), if allowed { "00" } else { "13" }, "{}", reply.text());
    }
}

#[tokio::test(start_paused = true)]
async fn snap_clock_skew() {
    let client = switched(|config| config.snap.clock_skew = Duration::from_secs(1));
    let body = snap_create();
    for (timestamp, status) in [("2026-01-05T10:00:01+07:00", 200), ("2026-01-05T10:00:02+07:00", 400)] {
        let reply = client.snap_changed("create", &body, |outgoing| outgoing.set("X-TIMESTAMP", timestamp)).await;
        assert_eq!(reply.status, status, "{timestamp}");
    }
}

#[tokio::test(start_paused = true)]
async fn banks_offer_what_the_table_says() {
    let client = fresh();
    let kinds = |bank: &str, single: &str, amount: &str| {
        [
            ("/additionalInfo/bankCode", json!(bank)),
            ("/additionalInfo/isSingleUse", json!(single)),
            ("/totalAmount/value", json!(amount)),
        ]
    };
    for bank in ["002", "008", "009", "014"] {
        for (single, amount) in [("Y", "50000.00"), ("N", "50000.00"), ("Y", "0.00"), ("N", "0.00")] {
            let offered = bank != "009" || (single, amount) != ("N", "50000.00");
            let expected = if offered { "2002700" } else { "4002701" };
            assert_eq!(create_code(&client, &kinds(bank, single, amount)).await, expected, "{bank} {single} {amount}");
        }
    }
    // A changed account obeys the table too, also where the amount goes without saying.
    let mut body = snap_create();
    body["additionalInfo"]["bankCode"] = json!("009");
    let mut update = snap_update(&client.snap("create", &body).await.data());
    update["additionalInfo"]["isSingleUse"] = json!("N");
    update.as_object_mut().unwrap().remove("totalAmount");
    let reply = client.snap("update", &update).await;
    assert_eq!(reply.json()["responseMessage"], "Invalid Field Format {additionalInfo.isSingleUse}");
}

#[tokio::test(start_paused = true)]
async fn updates_change_what_they_may() {
    let client = fresh();
    let mut body = snap_create();
    body["additionalInfo"]["bankCode"] = json!("009");
    let data = client.snap("create", &body).await.data();
    let changed = |set: &[(&str, Value)]| {
        let mut update = snap_update(&data);
        for (pointer, value) in set {
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            update.pointer_mut(parent).unwrap()[name] = value.clone();
        }
        update
    };
    for (set, expected) in [
        (("/totalAmount/value", json!("149999.00")), "4042813"),
        (("/totalAmount/value", json!("150000.00")), "2002800"),
        (("/customerNo", json!("OTHER00001")), "4042812"),
        (("/partnerServiceId", json!("    8663")), "4042812"),
        (("/additionalInfo/bankCode", json!("014")), "4042812"),
        (("/virtualAccountNo", json!("    8662999999999999")), "4042812"),
        (("/originalReferenceNo", json!("x")), "4042801"),
        (("/virtualAccountName", json!("Siti")), "2002800"),
        (("/additionalInfo/additionalInfo2", json!("two")), "2002800"),
    ] {
        assert_eq!(code(&client.snap("update", &changed(std::slice::from_ref(&set))).await), expected, "{set:?}");
    }
    let shown = client.snap("inquiry", &snap_inquiry(&data)).await.data();
    // The last update repeated the first name; what it did not mention stayed.
    assert_eq!(shown["virtualAccountName"], "Budi Santoso");
    assert_eq!(shown["additionalInfo"]["additionalInfo2"], "two");
    assert_eq!(shown["additionalInfo"]["additionalInfo1"], "INV-2026-0001");
    // An expired one that the update does not bring back.
    client.advance("48h").await;
    assert_eq!(code(&client.snap("update", &changed(&[])).await), "4042819");
}

#[tokio::test(start_paused = true)]
async fn an_update_leaves_what_it_does_not_mention() {
    let client = fresh();
    let data = client.snap("create", &snap_create()).await.data();
    let mut update = snap_update(&data);
    for name in ["virtualAccountPhone", "expiredDate", "totalAmount"] {
        update.as_object_mut().unwrap().remove(name);
    }
    update["additionalInfo"].as_object_mut().unwrap().remove("additionalInfo1");
    let updated = client.snap("update", &update).await.data();
    for name in ["virtualAccountPhone", "expiredDate", "totalAmount", "additionalInfo"] {
        assert_eq!(updated[name], data[name], "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_repetition_is_known_even_after_its_expiry() {
    let client = fresh();
    let id = client.id();
    let first = client.snap_as("create", &snap_create(), &id).await;
    client.advance("48h").await;
    let again = client.snap_as("create", &snap_create(), &id).await;
    assert_eq!((again.status, again.bytes), (200, first.bytes));
    assert_eq!(code(&client.snap("create", &snap_create()).await), "4002701");
}

#[tokio::test(start_paused = true)]
async fn an_occupied_number_comes_before_the_bank_s_offer() {
    let client = fresh();
    let bni = ("/additionalInfo/bankCode", json!("009"));
    let number = ("/virtualAccountNo", json!("123456789012"));
    let multi = ("/additionalInfo/isSingleUse", json!("N"));
    assert_eq!(create_code(&client, &[bni.clone(), number.clone()]).await, "2002700");
    assert_eq!(create_code(&client, &[bni, number, multi]).await, "4042712");
}

#[tokio::test(start_paused = true)]
async fn a_number_is_known_by_its_own_padding_only() {
    let client = fresh();
    let mut body = snap_create();
    body["virtualAccountNo"] = json!("123456789012345");
    let data = client.snap("create", &body).await.data();
    let mut inquiry = snap_inquiry(&data);
    inquiry["virtualAccountNo"] = json!("  14629123456789012345");
    assert_eq!(code(&client.snap("inquiry", &inquiry).await), "4043012");
}

#[tokio::test(start_paused = true)]
async fn classic_names_have_to_agree() {
    let client = fresh();
    let (_, data) = classic(&client, &[]).await;
    let not_found = |reply: Reply| (reply.status, reply.json()["errors"][0]["code"].clone()) == (503, json!("0213"));
    assert!(not_found(client.classic_get(&data, "014").await));
    assert!(not_found(classic_changed(&client, &data, "bankCode", json!("014")).await));
    assert!(not_found(classic_changed(&client, &data, "customerId", json!("AYOTST-00000000")).await));
    assert!(not_found(classic_changed(&client, &data, "virtualAccountId", json!("0".repeat(27))).await));
    assert_eq!(classic_changed(&client, &data, "bankCode", json!("002")).await.status, 200);
    let mut other = data.clone();
    other["customerId"] = json!("AYOTST-00000000");
    assert!(not_found(client.classic_get(&other, "002").await));
}

#[tokio::test(start_paused = true)]
async fn a_classic_number_may_be_given_again_once_it_is_over() {
    let client = fresh();
    let number = [("/virtualAccountNumber", json!("12345678"))];
    let (_, data) = classic(&client, &number).await;
    assert_eq!(classic(&client, &number).await.0, 503);
    client.pay(&data["virtualAccountNumber"], "150000.00").await;
    assert_eq!(classic(&client, &number).await.0, 201);
}

#[tokio::test(start_paused = true)]
async fn unusable_configurations_are_refused() {
    use ayova::config::sandbox::MerchantKey;
    let make = |set: fn(&mut SandboxConfig)| {
        let mut config = SandboxConfig::default();
        set(&mut config);
        let clock = fresh().clock;
        let random = rand::SeedableRng::seed_from_u64(1);
        ayova::sandbox::Sandbox::new(config, clock, random).err().map(|error| error.to_string())
    };
    assert_eq!(make(|_| {}), None);
    let key = make(|config| config.merchants[0].key = MerchantKey::PublicPem("x".to_owned())).unwrap();
    assert!(key.contains("sample"), "{key}");
    let address = make(|config| config.callbacks.snap = Some("nowhere".to_owned())).unwrap();
    assert!(address.contains("callbacks.snap"), "{address}");
}
