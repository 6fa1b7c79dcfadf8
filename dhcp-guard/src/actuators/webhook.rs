//! Tells an HTTP endpoint about the beginning and the end of a quarantine.
//!
//! The endpoint may be slow, hung, down or overloaded: each attempt has its time, there are only so many, ever further
//! apart, and all of them together have their time too. That an answer is lost can make an endpoint hear twice of the same
//! job; `Idempotency-Key` tells it so.

use std::{path::PathBuf, time::Duration};

use http_body_util::Full;
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{Actuator, Done, Endpoint, EndpointError, Failure, Job, Work, document, signature};
use crate::config::{self, ActuatorName};

/// All attempts and the pauses between them.
const LIMIT: Duration = Duration::from_secs(60);
/// The pause after the first attempt; each one after that is twice as long,
const PAUSE: Duration = Duration::from_millis(500);
/// but not longer than this.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Clone, Debug)]
pub struct Webhook {
    endpoint: Endpoint,
    secret_file: Option<PathBuf>,
    attempt: Duration,
    attempts: u32,
    pause: Duration,
    limit: Duration,
}

/// Why an attempt came to nothing.
enum Setback {
    /// The next one may do better.
    Passing(String),
    /// The endpoint will not have it.
    Lasting(String),
}

impl Webhook {
    /// The endpoint of the configuration. Nothing is sent yet.
    ///
    /// # Errors
    /// The address cannot be used.
    pub fn new(config: &config::Webhook) -> Result<Self, EndpointError> {
        Ok(Self {
            endpoint: config.url.parse()?,
            secret_file: config.secret_file.clone(),
            attempt: Duration::from_secs(config.timeout_s.into()),
            attempts: config.attempts,
            pause: PAUSE,
            limit: LIMIT,
        })
    }

    async fn tell(&self, job: &Job) -> Done {
        let end = Instant::now() + self.limit;
        let (body, key) = (Bytes::from(document::of(job)?), document::key(job));
        let secret = match &self.secret_file {
            Some(path) => Some(signature::secret(path).await?),
            None => None,
        };
        let mut made = 0;
        loop {
            made += 1;
            let request = self.request(&body, &key, secret.as_deref())?;
            let reason = match timeout_at(end, self.attempt(request)).await {
                Ok(Ok(status)) => return Ok(Some(format!("answered {status}"))),
                Ok(Err(Setback::Lasting(reason))) => return Err(self.failure(&reason, made)),
                Ok(Err(Setback::Passing(reason))) => reason,
                Err(_) => return Err(self.failure("no answer", made)),
            };
            let pause = pause(self.pause, made);
            if made >= self.attempts || Instant::now() + pause >= end {
                return Err(self.failure(&reason, made));
            }
            sleep(pause).await;
        }
    }

    fn failure(&self, reason: &str, attempts: u32) -> Failure {
        let plural = if attempts == 1 { "" } else { "s" };
        Failure::Failed(format!("http://{}: {reason} ({attempts} attempt{plural})", self.endpoint.authority))
    }

    /// The time is that of the attempt, so that an endpoint can refuse what is old; the key is the job's.
    fn request(&self, body: &Bytes, key: &str, secret: Option<&[u8]>) -> Result<Request<Full<Bytes>>, Failure> {
        let now_s = Timestamp::now().as_second();
        let mut request = Request::post(&self.endpoint.path)
            .header("Host", &self.endpoint.authority)
            .header("User-Agent", concat!("dhcp-guard/", env!("CARGO_PKG_VERSION")))
            .header("Content-Type", "application/json")
            .header("Connection", "close")
            .header("Idempotency-Key", key)
            .header("Dhcp-Guard-Timestamp", now_s);
        if let Some(secret) = secret {
            request = request.header("Dhcp-Guard-Signature", signature::sign(secret, now_s, body)?);
        }
        request.body(Full::new(body.clone())).map_err(|e| self.failure(&format!("cannot make a request: {e}"), 0))
    }

    async fn attempt(&self, request: Request<Full<Bytes>>) -> Result<StatusCode, Setback> {
        let late = |_| Setback::Passing(format!("no answer within {} s", self.attempt.as_secs_f32()));
        let status = timeout(self.attempt, self.exchange(request)).await.map_err(late)?.map_err(Setback::Passing)?;
        judge(status)
    }

    /// One connection, one request, and the status of the answer; what else the endpoint says is not read.
    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<StatusCode, String> {
        let place = (self.endpoint.host.as_str(), self.endpoint.port);
        let stream = TcpStream::connect(place).await.map_err(|e| format!("cannot connect: {e}"))?;
        let broken = |e: hyper::Error| format!("no proper answer: {e}");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        Ok(sender.send_request(request).await.map_err(broken)?.status())
    }
}

impl Actuator for Webhook {
    fn name(&self) -> ActuatorName {
        ActuatorName::Webhook
    }

    /// The time is kept here, so that the reason is not lost; this is for what comes after.
    fn timeout(&self) -> Duration {
        self.limit + Duration::from_secs(1)
    }

    fn impose<'a>(&'a self, job: &'a Job) -> Work<'a> {
        Box::pin(self.tell(job))
    }

    fn lift<'a>(&'a self, job: &'a Job) -> Work<'a> {
        Box::pin(self.tell(job))
    }
}

fn judge(status: StatusCode) -> Result<StatusCode, Setback> {
    let answered = format!("answered {status}");
    match status {
        _ if status.is_success() => Ok(status),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Err(Setback::Passing(answered)),
        _ if status.is_server_error() => Err(Setback::Passing(answered)),
        _ => Err(Setback::Lasting(answered)),
    }
}

/// The pause after so many attempts, give or take a half, so that not all hosts come back in the same instant.
fn pause(first: Duration, attempts: u32) -> Duration {
    let doubled = first.saturating_mul(1 << attempts.saturating_sub(1).min(16));
    doubled.min(MAX_PAUSE).mul_f64(0.5 + fastrand::f64())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        future::pending,
        os::unix::fs::PermissionsExt as _,
        sync::{Arc, Mutex},
    };

    use axum::{Router, extract::State, http::HeaderMap, routing::post};
    use tokio::net::TcpListener;

    use super::*;
    use crate::actuators::{
        What,
        dispatcher::Dispatcher,
        testing::{job, next},
    };

    /// What came to the endpoint, and what it answers: the statuses in turn, and the last one ever after.
    #[derive(Clone)]
    struct Endpoint {
        got: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
        answers: Vec<u16>,
    }

    impl Endpoint {
        fn heard(&self) -> usize {
            self.got.lock().unwrap().len()
        }

        fn header(&self, attempt: usize, name: &str) -> String {
            self.got.lock().unwrap()[attempt].0.get(name).map_or("", |value| value.to_str().unwrap()).to_owned()
        }
    }

    async fn answer(State(endpoint): State<Endpoint>, headers: HeaderMap, body: Bytes) -> StatusCode {
        let mut got = endpoint.got.lock().unwrap();
        let answer = endpoint.answers.get(got.len()).or(endpoint.answers.last());
        got.push((headers, body));
        StatusCode::from_u16(*answer.unwrap()).unwrap()
    }

    /// A real server on this host.
    async fn server(answers: &[u16]) -> (Endpoint, Webhook) {
        let endpoint = Endpoint { got: Arc::default(), answers: answers.into() };
        let router = Router::new().route("/dhcp", post(answer)).with_state(endpoint.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let webhook = webhook(listener.local_addr().unwrap().port());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (endpoint, webhook)
    }

    fn webhook(port: u16) -> Webhook {
        let url = format!("http://127.0.0.1:{port}/dhcp");
        let webhook = Webhook::new(&config::Webhook { url, secret_file: None, timeout_s: 1, attempts: 3 }).unwrap();
        Webhook { pause: Duration::from_millis(10), attempt: Duration::from_secs(10), ..webhook }
    }

    async fn impose(webhook: &Webhook) -> Result<String, String> {
        let done = webhook.impose(&job(What::Impose, 7)).await;
        done.map(Option::unwrap_or_default).map_err(|failure| failure.to_string())
    }

    #[tokio::test]
    async fn the_endpoint_gets_the_document_once() {
        let (endpoint, webhook) = server(&[204]).await;
        assert_eq!(impose(&webhook).await, Ok("answered 204 No Content".into()));
        assert_eq!(endpoint.heard(), 1);
        let body: serde_json::Value = serde_json::from_slice(&endpoint.got.lock().unwrap()[0].1).unwrap();
        assert_eq!((&body["action"], &body["quarantine"]["id"]), (&"impose".into(), &7.into()));
        assert!(endpoint.header(0, "idempotency-key").ends_with("-7-impose-1"));
        assert_eq!(endpoint.header(0, "content-type"), "application/json");
        assert_eq!(endpoint.header(0, "dhcp-guard-signature"), "", "without a secret");
    }

    #[tokio::test]
    async fn the_endpoint_can_verify_who_speaks() {
        let (endpoint, mut webhook) = server(&[500, 200]).await;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        fs::write(&file, "s3cret\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        webhook.secret_file = Some(file.clone());
        assert_eq!(impose(&webhook).await, Ok("answered 200 OK".into()));
        for attempt in 0..2 {
            let time_s: i64 = endpoint.header(attempt, "dhcp-guard-timestamp").parse().unwrap();
            assert!((Timestamp::now().as_second() - time_s).abs() <= 5);
            let body = endpoint.got.lock().unwrap()[attempt].1.clone();
            let signed = endpoint.header(attempt, "dhcp-guard-signature");
            assert_eq!(signed, signature::sign(b"s3cret", time_s, &body).unwrap());
            assert_ne!(signed, signature::sign(b"other", time_s, &body).unwrap());
        }
        fs::remove_file(&file).unwrap();
        assert!(impose(&webhook).await.unwrap_err().starts_with("cannot use the secret in "));
        assert_eq!(endpoint.heard(), 2, "unsigned it sends nothing");
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_again_with_the_same_key() {
        let (endpoint, webhook) = server(&[500, 429, 200]).await;
        assert_eq!(impose(&webhook).await, Ok("answered 200 OK".into()));
        assert_eq!(endpoint.heard(), 3);
        let keys: Vec<_> = (0..3).map(|attempt| endpoint.header(attempt, "idempotency-key")).collect();
        assert!(keys.iter().all(|key| *key == keys[0]));
    }

    #[tokio::test]
    async fn what_will_not_pass_is_not_tried_again() {
        for status in [400, 404, 301] {
            let (endpoint, webhook) = server(&[status]).await;
            let failure = impose(&webhook).await.unwrap_err();
            assert!(failure.contains(&format!("answered {status} ")) && failure.ends_with("(1 attempt)"), "{failure}");
            assert_eq!(endpoint.heard(), 1);
        }
    }

    #[tokio::test]
    async fn there_are_only_so_many_attempts() {
        let (endpoint, webhook) = server(&[503]).await;
        let failure = impose(&webhook).await.unwrap_err();
        assert!(failure.ends_with("answered 503 Service Unavailable (3 attempts)"), "{failure}");
        assert_eq!(endpoint.heard(), 3);
    }

    #[tokio::test]
    async fn there_is_only_so_much_time() {
        let (endpoint, webhook) = server(&[503]).await;
        let patient = Webhook {
            attempts: u32::MAX,
            limit: Duration::from_millis(600),
            pause: Duration::from_millis(100),
            ..webhook
        };
        let start = Instant::now();
        assert!(impose(&patient).await.unwrap_err().contains("answered 503"));
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        assert!((2..10).contains(&endpoint.heard()), "{}", endpoint.heard());
    }

    #[tokio::test]
    async fn nobody_listens() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let failure = impose(&webhook(port)).await.unwrap_err();
        assert!(failure.contains("cannot connect: Connection refused"), "{failure}");
        assert!(failure.ends_with("(3 attempts)"), "{failure}");
    }

    #[tokio::test]
    async fn somebody_accepts_and_never_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                held.push(stream);
            }
            pending::<()>().await;
        });
        let webhook = Webhook { attempt: Duration::from_millis(300), ..webhook(port) };
        let start = Instant::now();
        let failure = impose(&webhook).await.unwrap_err();
        assert!(failure.ends_with("no answer within 0.3 s (3 attempts)"), "{failure}");
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());

        let (handle, mut outcomes, _dispatcher) = Dispatcher::start(vec![Arc::new(webhook)]);
        let start = Instant::now();
        handle.dispatch(job(What::Impose, 1));
        handle.dispatch(job(What::Lift, 1));
        assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
        let (first, second) = (next(&mut outcomes).await, next(&mut outcomes).await);
        assert_eq!((first.what, second.what), (What::Impose, What::Lift));
        assert!(first.took >= Duration::from_millis(900) && first.result.is_err());
    }

    #[tokio::test]
    async fn somebody_speaks_another_language() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                _ = stream.try_write(b"220 mail ready\r\n");
            }
        });
        let failure = impose(&webhook(port)).await.unwrap_err();
        assert!(failure.contains("no proper answer"), "{failure}");
    }

    #[test]
    fn pauses_double_up_to_ten_seconds_give_or_take_a_half() {
        for (attempts, middle) in [(1, 500), (2, 1000), (4, 4000), (10, 10_000), (u32::MAX, 10_000)] {
            let middle = Duration::from_millis(middle);
            for _ in 0..100 {
                let pause = pause(PAUSE, attempts);
                assert!((middle / 2..=middle * 3 / 2).contains(&pause), "{attempts}: {pause:?}");
            }
        }
    }
}
