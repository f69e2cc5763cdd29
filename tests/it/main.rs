//! The integration tests: the real binary, real sockets, real signals. One module a topic.

mod support;

// A request, from the door to the upstream and back.
mod allowance; // what limits weigh, when they begin anew, and what is told of them
mod auth; // who calls: judged here, told to the origin, and nobody else gets there
mod balance; // who is next, and whose client stays where
mod calamity; // services that die, freeze, break off, lie and flap beside a good one
mod client_certificate; // who the client is by its certificate, and who is told
mod connections; // how many of them one address may have, and how fast they may come
mod cors; // browsers: what a preflight is told, and whose pages may read what
mod discovery; // where requests go, when names, services and lists say otherwise, or an operator does
mod failover; // upstreams that fail: who is put out, who is left alone
mod faults; // upstreams that break, clients that dawdle, resources that run out
mod fleet; // how much, for several gateways together, whatever becomes of their store
mod forwarding; // what the upstream is told: addresses, hosts, ids, and nothing a client made up
mod framing; // what has more than one reading is refused before anybody else reads it
mod h2; // the same by HTTP/2, and what only HTTP/2 has
mod health; // which endpoints are well, by what is asked of them
mod hostile; // what a client may ask of us besides requests, and how long it may take
mod limit; // how much: exact, and paid for only by what passed
mod overload; // too much of everything: who waits, who is told to come back, and who still sees it
mod proxy_protocol; // whom balancers speak for, and who is believed
mod resumption; // sessions that go on: over reloads and upgrades, and never where they must not
mod retry; // what is sent again, and what never is
mod reuse; // which connections to upstreams carry another request, and which never
mod routing; // which route takes a request, and what becomes of it
mod secrets; // what proves who calls stands in no log
mod sentinel; // how much, for a fleet whose store is wherever sentinels say
mod streams; // WebSocket, server-sent events, gRPC
mod tls; // who is shown which certificate, and whose is believed
mod upstream; // where requests go, and who is fit to take them

// A process, from its start to its end.
mod activation; // sockets that the service manager has bound, by name
mod drain; // leaving without losing anybody
mod life; // probes, commands, exit codes, signals
mod reload; // everything changes at once, or nothing does
mod service_manager; // what systemd is told, and by whom
mod upgrade; // handing over: nobody notices, or nothing happens
mod watch; // files that are followed: a change needs no command
mod zero_loss; // all of it under load, with the fate of each request

// Those who look at it.
mod admin; // what an operator sees: probes, metrics, the status page, across reloads and upgrades
mod demo; // `tollgate demo`, as a newcomer uses it
mod telemetry; // what is left of a request: its numbers, and its one line
mod token; // `tollgate token`: looked into as the gateway would, and made for tests
