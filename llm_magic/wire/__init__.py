"""The wire: a request as the body of an API, the bytes of its answer as events, every fault as an error of ours."""
