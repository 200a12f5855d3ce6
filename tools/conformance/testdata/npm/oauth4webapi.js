// oauth4webapi against the issuer of the environment: each step throws if the library or a check fails.
import assert from 'node:assert/strict'
import * as oauth from 'oauth4webapi'
import { CLIENT_ID, CLIENT_SECRET, ISSUER, KEY, KEYED_ID, OLDER_ID, OTHER_SCOPE, RESOURCE, SCOPE, assertionType, openID, report } from './environment.js'

const insecure = { [oauth.allowInsecureRequests]: true } // the issuer is on loopback
const issuer = new URL(ISSUER)
const client = { client_id: CLIENT_ID }

const response = await oauth.discoveryRequest(issuer, { algorithm: openID ? 'oidc' : 'oauth2', ...insecure })
const server = await oauth.processDiscoveryResponse(issuer, response)

async function grant(method, parameters) {
  const response = await oauth.clientCredentialsGrantRequest(server, client, method, new URLSearchParams(parameters), insecure)
  return oauth.processClientCredentialsResponse(server, client, response)
}

async function validate(token, audience) {
  const request = new Request(audience, { headers: { authorization: `Bearer ${token}` } })
  return oauth.validateJwtAccessToken(server, request, audience, insecure)
}

for (const method of [oauth.ClientSecretBasic, oauth.ClientSecretPost]) {
  const answer = await grant(method(CLIENT_SECRET), { scope: SCOPE, resource: RESOURCE })
  assert.equal(answer.token_type, 'bearer')
  assert.equal(answer.scope, SCOPE)
  assert.equal(answer.expires_in, 3600)
  const claims = await validate(answer.access_token, RESOURCE)
  assert.equal(claims.client_id, CLIENT_ID)
  assert.equal(claims.aud, RESOURCE)
  await assert.rejects(validate(answer.access_token, 'https://elsewhere.internal'), oauth.OperationProcessingError)

  await assert.rejects(grant(method('wrong'), { scope: SCOPE }), (error) => {
    assert(error instanceof oauth.WWWAuthenticateChallengeError, error)
    assert.equal(error.status, 401)
    assert.equal(error.cause[0].scheme, 'basic')
    assert.equal(error.cause[0].parameters.realm, ISSUER)
    return true
  })
  await assert.rejects(grant(method(CLIENT_SECRET), { scope: OTHER_SCOPE }), (error) => {
    assert(error instanceof oauth.ResponseBodyError, error)
    assert.equal(error.status, 400)
    assert.equal(error.error, 'invalid_scope')
    assert(error.error_description)
    return true
  })
}

// By a key: what the library sends by itself has no type.
const key = { key: await crypto.subtle.importKey('jwk', KEY, { name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign']), kid: KEY.kid }
const typed = { [oauth.modifyAssertion]: (header) => { header.typ = assertionType } }
async function byKey(id, options) {
  const client = { client_id: id }
  const response = await oauth.clientCredentialsGrantRequest(
    server, client, oauth.PrivateKeyJwt(key, options), new URLSearchParams({ scope: SCOPE, resource: RESOURCE }), insecure)
  return oauth.processClientCredentialsResponse(server, client, response)
}
for (const [id, options] of [[KEYED_ID, typed], [OLDER_ID, undefined]]) {
  const claims = await validate((await byKey(id, options)).access_token, RESOURCE)
  assert.equal(claims.client_id, id)
}
await assert.rejects(byKey(KEYED_ID, undefined), oauth.WWWAuthenticateChallengeError)
report('oauth4webapi')
