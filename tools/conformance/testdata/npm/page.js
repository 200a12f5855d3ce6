// Calls the issuer as a web page does, by connect-web, and returns what became of each call.
import { createFileRegistry, fromBinary } from '@bufbuild/protobuf'
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt'
import { Code, ConnectError, createClient } from '@connectrpc/connect'
import { createConnectTransport, createGrpcWebTransport } from '@connectrpc/connect-web'

// proof returns a DPoP proof (RFC 9449 §4.2) for a URL, made with a key that never leaves the browser.
async function proof(key, url, nonce) {
  const encode = (data) => btoa(String.fromCharCode(...data)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')
  const part = (object) => encode(new TextEncoder().encode(JSON.stringify(object)))
  const { kty, crv, x, y } = await crypto.subtle.exportKey('jwk', key.publicKey)
  const signed = part({ typ: 'dpop+jwt', alg: 'ES256', jwk: { kty, crv, x, y } }) + '.' +
    part({ jti: crypto.randomUUID(), htm: 'POST', htu: url, iat: Math.floor(Date.now() / 1000), nonce })
  const signature = await crypto.subtle.sign({ name: 'ECDSA', hash: 'SHA-256' }, key.privateKey, new TextEncoder().encode(signed))
  return signed + '.' + encode(new Uint8Array(signature))
}

// attempt returns what a call returns, or the code, the reason and the text of its error.
async function attempt(registry, call) {
  try {
    return await call()
  } catch (error) {
    const refused = ConnectError.from(error)
    const info = refused.findDetails(registry.getMessage('google.rpc.ErrorInfo'))[0]
    const nonce = refused.metadata.get('dpop-nonce') ?? undefined
    return { error: Code[refused.code], reason: info?.reason, text: refused.rawMessage, nonce }
  }
}

// calls makes the same calls by one transport.
async function calls(registry, transport, { issuer, id, secret, scope }) {
  const service = registry.getService('grantor.v1.TokenService')
  const client = createClient(service, transport)
  const request = { grantType: 'client_credentials', clientId: id, clientSecret: secret, scope }
  const issue = (changes, options) => attempt(registry, async () => {
    const token = await client.issueToken({ ...request, ...changes }, options)
    return { type: token.tokenType, scope: token.scope, token: token.accessToken }
  })
  const key = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign', 'verify'])
  const url = issuer + '/grantor.v1.TokenService/IssueToken'
  const bound = async (nonce) => issue({}, { headers: { DPoP: await proof(key, url, nonce) } })
  const first = await bound()
  return {
    token: await issue({}, { timeoutMs: 10_000 }),
    basic: await issue({ clientId: '', clientSecret: '' }, { headers: { Authorization: 'Basic ' + btoa(id + ':' + secret) } }),
    wrong: await issue({ clientSecret: 'wrong-' + secret }),
    missing: await issue({ grantType: '' }),
    unproven: first,
    bound: await bound(first.nonce),
    issuer: await attempt(registry, async () => (await client.getServerMetadata({})).issuer),
    keys: await attempt(registry, async () => (await client.getKeySet({})).keys.length > 0),
  }
}

// callIssuer makes the calls by each transport and codec. files are the descriptors of the service, in base64.
globalThis.callIssuer = async (settings) => {
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, Uint8Array.from(atob(settings.files), (c) => c.charCodeAt(0))))
  const results = {}
  for (const [name, createTransport] of Object.entries({ Connect: createConnectTransport, 'gRPC-Web': createGrpcWebTransport })) {
    for (const useBinaryFormat of [true, false]) {
      const transport = createTransport({ baseUrl: settings.issuer, useBinaryFormat })
      results[name + (useBinaryFormat ? ', binary' : ', JSON')] = await calls(registry, transport, settings)
    }
  }
  return results
}
