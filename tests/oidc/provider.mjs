// An OpenID provider on loopback, for the tests: everybody's own implementation, with keys that turn when told to.
//
// It prints one line of JSON with its issuer when it serves. On each line of standard input it does what that says:
// `turn` makes a new signing key and publishes the old one beside it, `forget` publishes the newest alone. Each is
// answered with a line. It ends with its standard input.

import { createServer } from 'node:http';
import { createInterface } from 'node:readline';

import { exportJWK, generateKeyPair } from 'jose';
import { Provider } from 'oidc-provider';

// Standard output is for the answers alone; the provider has much to say.
const answer = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
console.log = console.info = console.warn = console.error;

const RESOURCE = 'https://orders.test';
const CLIENT = { client_id: 'machine', client_secret: 'the-secret-of-a-machine' };

let count = 0;
async function key() {
  const { privateKey } = await generateKeyPair('ES256', { extractable: true });
  count += 1;
  return { ...(await exportJWK(privateKey)), kid: `key-${count}`, alg: 'ES256', use: 'sig' };
}

// A provider's keys are fixed once it is made: each turn makes another in front of the same socket.
function provider(issuer, keys) {
  const made = new Provider(issuer, {
    jwks: { keys },
    clients: [
      {
        ...CLIENT,
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
        id_token_signed_response_alg: 'ES256',
      },
    ],
    cookies: { keys: ['nobody has a session here'] },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true, allowedPolicy: () => true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => RESOURCE,
        getResourceServerInfo: (_, resource) => ({
          audience: resource,
          scope: 'orders.read orders.write',
          accessTokenTTL: 600,
          // One whose tokens mean nothing to anybody but their issuer, who has to be asked.
          accessTokenFormat: resource === RESOURCE ? 'jwt' : 'opaque',
          ...(resource === RESOURCE && { jwt: { sign: { alg: 'ES256' } } }),
        }),
      },
    },
  });
  return made.callback();
}

let serve;
const server = createServer((request, response) => serve(request, response));
server.listen(0, '127.0.0.1', async () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  let keys = [await key()];
  serve = provider(issuer, keys);
  answer({ issuer, resource: RESOURCE, ...CLIENT });
  const lines = createInterface({ input: process.stdin });
  for await (const line of lines) {
    if (line === 'turn') keys = [await key(), ...keys];
    if (line === 'forget') keys = keys.slice(0, 1);
    serve = provider(issuer, keys);
    answer({ keys: keys.map(({ kid }) => kid) });
  }
  process.exit(0);
});
