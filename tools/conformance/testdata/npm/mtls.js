// oauth4webapi and openid-client with client certificates (RFC 8705), against the issuer and the guarded server of the environment:
// each step throws if a library or a check fails. Both libraries leave TLS to the function that fetches: undici has the certificate,
// as their documentation advises. openid-client 5 has a hook of its own.
import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import * as jose from 'jose'
import * as oauth from 'oauth4webapi'
import * as openid from 'openid-client'
import * as openid5 from 'openid-client5'
import * as undici from 'undici'

const { ISSUER, API, RESOURCE, BOUND_RESOURCE, SCOPE, BOUND_SCOPE } = process.env
const issuer = new URL(ISSUER)
const ca = readFileSync('ca.pem')

// The two clients, each with its certificate: the name of one is registered, and the key of the other, whose tokens are bound.
const named = identity('named', 'tls_client_auth')
const keyed = identity('keyed', 'self_signed_tls_client_auth')
const stranger = identity('stranger')

function identity(name, method) {
  const [cert, key] = [readFileSync(`${name}.pem`), readFileSync(`${name}.key`)]
  const dispatcher = new undici.Agent({ connect: { ca, cert, key } })
  return {
    id: name, method, cert, key,
    fetch: (url, options) => undici.fetch(url, { ...options, dispatcher }),
    thumbprint: Buffer.from(new X509Certificate(cert).fingerprint256.replaceAll(':', ''), 'hex').toString('base64url'),
  }
}

// What each client requests, and to which certificate its token is bound.
const requests = [
  [named, RESOURCE, SCOPE, undefined],
  [named, BOUND_RESOURCE, BOUND_SCOPE, named.thumbprint],
  [keyed, RESOURCE, SCOPE, keyed.thumbprint],
]

// The ways to a token: each returns the response of RFC 6749 §5.1, or throws the error that refused recognizes.
const ways = {
  oauth4webapi: {
    async grant(caller, id, scope, resource) {
      const options = { [oauth.customFetch]: caller.fetch }
      const response = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...options })
      const server = await oauth.processDiscoveryResponse(issuer, response)
      assert(server.token_endpoint_auth_methods_supported.includes(named.method))
      assert(server.token_endpoint_auth_methods_supported.includes(keyed.method))
      assert.equal(server.tls_client_certificate_bound_access_tokens, true)
      const client = { client_id: id }
      const answer = await oauth.clientCredentialsGrantRequest(server, client, oauth.TlsClientAuth(), new URLSearchParams({ scope, resource }), options)
      return oauth.processClientCredentialsResponse(server, client, answer)
    },
    refused: (error) => error instanceof oauth.WWWAuthenticateChallengeError && error.status === 401,
  },
  'openid-client 6': {
    async grant(caller, id, scope, resource) {
      const config = await openid.discovery(issuer, id, undefined, openid.TlsClientAuth(), { algorithm: 'oauth2', [openid.customFetch]: caller.fetch })
      return openid.clientCredentialsGrant(config, { scope, resource })
    },
    refused: (error) => error instanceof openid.WWWAuthenticateChallengeError && error.status === 401,
  },
  'openid-client 5': {
    async grant({ cert, key, method }, id, scope, resource) {
      openid5.custom.setHttpOptionsDefaults({ ca })
      const { Client } = await openid5.Issuer.discover(`${ISSUER}/.well-known/oauth-authorization-server`)
      const client = new Client({ client_id: id, token_endpoint_auth_method: method ?? named.method })
      client[openid5.custom.http_options] = () => ({ ca, cert, key })
      return client.grant({ grant_type: 'client_credentials', scope, resource })
    },
    refused: (error) => error instanceof openid5.errors.OPError && error.error === 'invalid_client',
  },
}

const keys = jose.createRemoteJWKSet(new URL(`${ISSUER}/.well-known/jwks.json`), { [jose.customFetch]: stranger.fetch })

async function call(caller, token) {
  const { status } = await caller.fetch(API, { headers: { authorization: `Bearer ${token}` } })
  return status
}

for (const [name, { grant, refused }] of Object.entries(ways)) {
  for (const [client, resource, scope, thumbprint] of requests) {
    const { access_token: token, token_type: type } = await grant(client, client.id, scope, resource)
    assert.equal(type.toLowerCase(), 'bearer')
    const { payload: claims } = await jose.jwtVerify(token, keys, { issuer: ISSUER, audience: resource, typ: 'at+jwt' })
    assert.equal(claims.client_id, client.id, name)
    assert.equal(claims.cnf?.['x5t#S256'], thumbprint, name)
    if (resource === BOUND_RESOURCE) {
      assert.equal(await call(client, token), 200, name)
      assert.equal(await call(stranger, token), 401, name)
      assert.equal(await call(keyed, token), 401, name)
    }
  }
  for (const caller of [stranger, keyed]) {
    await assert.rejects(grant(caller, named.id, SCOPE, RESOURCE), refused, name)
  }
  for (const caller of [stranger, named]) {
    await assert.rejects(grant(caller, keyed.id, SCOPE, RESOURCE), refused, name)
  }
  console.log(name)
}
