// A consumer of webhooks for the tests: believes what the standard library verifies, and remembers everything.
//
//   node receiver.js PORT
//   PUT  /control/NAME  {"secret": "whsec_…", "status": 204, "delayMs": 0, "refuseEvery": 0}
//                                                                            how the hook NAME behaves
//   POST /hook/NAME                                                          a delivery
//   GET  /seen/NAME     [{"verified": true, "error": null, "event": {…}, "headers": {…}, "status": 204}]
"use strict";
const http = require("node:http");
const { Webhook } = require("standardwebhooks");

const hooks = new Map();
const hook = (name) => {
  if (!hooks.has(name)) hooks.set(name, { secret: null, status: 204, delayMs: 0, refuseEvery: 0, seen: [] });
  return hooks.get(name);
};

const read = async (request) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString("utf8");
};

const deliver = async (state, request, response) => {
  const body = await read(request);
  const entry = { verified: false, error: null, event: null, headers: request.headers, status: state.status };
  if (state.secret === null) {
    entry.status = 503;
  } else {
    try {
      entry.event = new Webhook(state.secret).verify(body, request.headers);
      entry.verified = true;
    } catch (error) {
      entry.error = String(error);
      entry.status = 400;
    }
  }
  // One of so many is refused, though it is right.
  if (state.refuseEvery > 0 && state.seen.length % state.refuseEvery === 0) entry.status = 503;
  state.seen.push(entry);
  if (state.delayMs > 0) await new Promise((resolve) => setTimeout(resolve, state.delayMs));
  response.writeHead(entry.status).end();
};

const server = http.createServer(async (request, response) => {
  try {
    const [, what, name] = request.url.split("/");
    const state = hook(name);
    if (what === "hook" && request.method === "POST") return await deliver(state, request, response);
    if (what === "control" && request.method === "PUT") {
      Object.assign(state, JSON.parse(await read(request)));
      return response.writeHead(204).end();
    }
    if (what === "seen" && request.method === "GET") {
      return response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(state.seen));
    }
    return response.writeHead(404).end();
  } catch (error) {
    return response.writeHead(500).end(String(error));
  }
});
server.listen(Number(process.argv[2]), "127.0.0.1", () => process.stdout.write("listening\n"));
