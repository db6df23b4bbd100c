//! Every query of the dashboard and of the alerts is one that a real Prometheus answers.
