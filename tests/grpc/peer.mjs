// A gRPC server, and a client that calls it through whatever stands between them.
//   node peer.mjs serve          says where it listens, and serves until its standard input ends
//   node peer.mjs call ADDRESS   makes every kind of call, and says as JSON how each went
import grpc from '@grpc/grpc-js';

const text = { serialize: (value) => Buffer.from(value), deserialize: (bytes) => bytes.toString() };
const method = (name, requestStream, responseStream) => ({
  path: `/test.Echo/${name}`,
  requestStream,
  responseStream,
  requestSerialize: text.serialize,
  requestDeserialize: text.deserialize,
  responseSerialize: text.serialize,
  responseDeserialize: text.deserialize,
});
const definition = {
  Unary: method('Unary', false, false),
  Fail: method('Fail', false, false),
  Slow: method('Slow', false, true),
  Count: method('Count', false, true),
  Join: method('Join', true, false),
  Talk: method('Talk', true, true),
};

const behaviour = {
  Unary: (call, answer) => {
    const trailers = new grpc.Metadata();
    trailers.set('x-trailer', 'last');
    answer(null, `${call.request} for ${call.metadata.get('x-tenant')}`, trailers);
  },
  Fail: (_, answer) => answer({ code: grpc.status.NOT_FOUND, details: 'no such order' }),
  Slow: (call) => call.write('first'),
  Count: (call) => {
    for (let n = 0; n < Number(call.request); n += 1) call.write(String(n));
    call.end();
  },
  Join: (call, answer) => {
    const parts = [];
    call.on('data', (part) => parts.push(part));
    call.on('end', () => answer(null, parts.join('+')));
  },
  Talk: (call) => {
    call.on('data', (part) => call.write(part.toUpperCase()));
    call.on('end', () => call.end());
  },
};

function serve() {
  const server = new grpc.Server();
  server.addService(definition, behaviour);
  server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) => {
    if (error) throw error;
    console.log(JSON.stringify({ address: `127.0.0.1:${port}` }));
  });
  process.stdin.on('end', () => process.exit()).resume();
}

const stream = (call) =>
  new Promise((resolve) => {
    const got = [];
    call.on('data', (part) => got.push(part));
    call.on('error', () => {});
    call.on('status', ({ code, details }) => resolve({ got, code, details }));
  });

const unary = (start) =>
  new Promise((resolve) => {
    const result = {};
    const call = start((error, value) => {
      Object.assign(result, error ? { code: error.code, details: error.details } : { value, code: 0 });
    });
    call.on('status', ({ metadata }) => resolve({ ...result, trailer: metadata.get('x-trailer') }));
  });

async function call(address) {
  const Client = grpc.makeGenericClientConstructor(definition, 'Echo');
  const client = new Client(address, grpc.credentials.createInsecure());
  const metadata = new grpc.Metadata();
  metadata.set('x-tenant', 'acme');
  const results = {};
  results.unary = await unary((done) => client.Unary('hello', metadata, done));
  results.large = await unary((done) => client.Unary('x'.repeat(1_000_000), metadata, done));
  results.large.value = results.large.value?.length;
  results.fail = await unary((done) => client.Fail('which', metadata, done));
  const counted = await stream(client.Count('5000'));
  results.count = { code: counted.code, got: counted.got.length, last: counted.got.at(-1) };
  results.join = await unary((done) => {
    const parts = client.Join(done);
    for (const part of ['a', 'b', 'c']) parts.write(part);
    parts.end();
    return parts;
  });
  const talk = client.Talk();
  const said = stream(talk);
  for (const part of ['one', 'two']) talk.write(part);
  talk.end();
  results.talk = await said;
  results.many = (await Promise.all(Array.from({ length: 200 }, (_, n) => unary((done) => client.Unary(`${n}`, metadata, done)))))
    .filter(({ code, value }, n) => code === 0 && value === `${n} for acme`).length;
  results.late = await stream(client.Slow('now', { deadline: Date.now() + 300 }));
  console.log(JSON.stringify(results));
  client.close();
}

const [, , verb, address] = process.argv;
if (verb === 'serve') serve();
else await call(address);
