//! The secret in the callbacks' address while it is replaced.

use ayova::config::{Callbacks, Secret};

use super::{Circle, SECRET, body, callbacks, memory, seconds};
use crate::gateway_secrecy::Lines;

#[tokio::test(start_paused = true)]
async fn a_secret_from_before_counts_until_it_is_removed() {
    let [new, old, older] = ["n", "o", "p"].map(|letter| letter.repeat(32));
    let secret = |text: &String| Secret::new(text.clone());
    let previous_secrets = vec![secret(&old), secret(&older)];
    let callbacks = Callbacks { secret: secret(&new), previous_secrets, ..callbacks() };
    let mut circle = Circle::with(memory(), callbacks).await;
    let paid = async |circle: &Circle, secret: &str, time: &str| {
        let path = format!("/callbacks/snap/AYOTST/{secret}");
        circle.call("POST", &path, &body("   1462912345678901", time)).await.unwrap().0
    };
    for (time, secret) in [&new, &old, &older].into_iter().enumerate() {
        assert_eq!(paid(&circle, secret, &format!("T{time}")).await, 200);
    }
    assert_eq!(paid(&circle, SECRET, "T3").await, 404);
    assert_eq!(paid(&circle, &format!("{new}{old}"), "T3").await, 404);
    seconds(5).await;
    assert_eq!(circle.taken().len(), 3);
    // As a reload does it.
    circle.config.callbacks.as_mut().unwrap().previous_secrets.retain(|known| *known.expose() != old);
    circle.line.0.lock().unwrap().replace(circle.receiver(&circle.store));
    assert_eq!(paid(&circle, &old, "T4").await, 404);
    for (time, secret) in [&new, &older].into_iter().enumerate() {
        assert_eq!(paid(&circle, secret, &format!("T{}", 5 + time)).await, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn while_an_address_from_before_is_called_the_log_says_so_once_a_minute() {
    let [new, old, older] = ["n", "o", "p"].map(|letter| letter.repeat(32));
    let previous_secrets = [&old, &older].map(|text| Secret::new(text.clone())).to_vec();
    let callbacks = Callbacks { secret: Secret::new(new.clone()), previous_secrets, ..callbacks() };
    let circle = Circle::with(memory(), callbacks).await;
    let lines = Lines::capture();
    let call = async |method: &str, dialect: &str, secret: &str| {
        let path = format!("/callbacks/{dialect}/AYOTST/{secret}");
        circle.call(method, &path, "{}").await.unwrap();
    };
    let said = || {
        let text = lines.text();
        assert!(![&new, &old, &older].into_iter().any(|secret| text.contains(secret)), "{text}");
        let of = text.lines().filter(|line| line.contains("the address of a previous secret"));
        of.map(|line| line.split_once("previous secret ").unwrap().1.to_owned()).collect::<Vec<_>>()
    };
    call("POST", "snap", &new).await;
    call("GET", "snap", &old).await;
    assert!(said().is_empty(), "{:?}", said());
    for _ in 0..3 {
        call("POST", "snap", &old).await;
    }
    call("POST", "classic", &older).await;
    let (one, other) =
        (r#"merchant="sample" dialect="snap" previous=1"#, r#"merchant="sample" dialect="classic" previous=2"#);
    assert_eq!(said(), [one, other]);
    seconds(59).await;
    call("POST", "snap", &old).await;
    assert_eq!(said().len(), 2);
    seconds(1).await;
    call("POST", "snap", &old).await;
    assert_eq!(said(), [one, other, one]);
}
