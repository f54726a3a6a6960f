//! The agent in a pod, asked through the API server: loads and requests from where Services have names.

use http::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Api;
use crate::{
    agent::{Probe, Until},
    harness::http::Answer,
    load::{Live, Report},
};

/// The port of the agent.
pub(super) const PORT: u16 = 9099;

/// A pod that runs `sluice-load agent`.
#[derive(Clone)]
pub struct Agent<'a> {
    api: &'a Api,
    base: String,
}

/// A load that runs in a pod; dropping it ends it.
pub struct RemoteLoad<'a> {
    agent: Agent<'a>,
    number: Option<usize>,
}

impl<'a> Agent<'a> {
    /// The agent in this pod.
    pub fn new(api: &'a Api, namespace: &str, pod: &str) -> Agent<'a> {
        Agent { api, base: format!("/api/v1/namespaces/{namespace}/pods/{pod}:{PORT}/proxy") }
    }

    /// Sends one request.
    pub fn request(&self, probe: &Probe) -> anyhow::Result<Answer> {
        self.post("/request", &json!(probe))
    }

    /// Sends a request again and again until it is answered as wanted.
    pub fn until(&self, until: &Until) -> anyhow::Result<Answer> {
        self.post("/until", &json!(until))
    }

    /// Starts a load with these arguments of `sluice-load`, separated by spaces.
    pub fn load(&self, args: &str) -> anyhow::Result<RemoteLoad<'a>> {
        let args: Vec<_> = args.split_whitespace().collect();
        let number = self.post("/loads", &json!(args))?;
        Ok(RemoteLoad { agent: self.clone(), number: Some(number) })
    }

    fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> anyhow::Result<T> {
        let text = self.api.text(Method::POST, &format!("{}{path}", self.base), Some(body))?;
        Ok(serde_json::from_str(if text.is_empty() { "null" } else { &text })?)
    }
}

impl RemoteLoad<'_> {
    /// The counts so far.
    pub fn live(&self) -> anyhow::Result<Live> {
        let text = self.agent.api.text(Method::GET, &self.path(""), None)?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Sets the rate.
    pub fn set_rate(&self, rate: f64) -> anyhow::Result<()> {
        self.agent.api.text(Method::POST, &self.path("/rate"), Some(&json!(rate))).map(|_| ())
    }

    /// Ends it: what is under way is finished and counted.
    pub fn stop(mut self) -> anyhow::Result<Report> {
        let text = self.agent.api.text(Method::POST, &self.path("/stop"), Some(&Value::Null))?;
        self.number = None;
        Ok(serde_json::from_str(&text)?)
    }

    fn path(&self, what: &str) -> String {
        format!("{}/loads/{}{what}", self.agent.base, self.number.unwrap_or_default())
    }
}

impl Drop for RemoteLoad<'_> {
    fn drop(&mut self) {
        if self.number.is_some() {
            let _ = self.agent.api.text(Method::POST, &self.path("/stop"), Some(&Value::Null));
        }
    }
}
