// openid-client against the issuer of the environment: each step throws if the library or a check fails.
import assert from 'node:assert/strict'
import * as openid from 'openid-client'
import { CLIENT_ID, CLIENT_SECRET, ISSUER, KEY, KEYED_ID, OLDER_ID, OTHER_SCOPE, RESOURCE, SCOPE, assertionType, openID, report, verify } from './environment.js'

function discover(method) {
  return openid.discovery(new URL(ISSUER), CLIENT_ID, undefined, method, {
    algorithm: openID ? 'oidc' : 'oauth2',
    execute: [openid.allowInsecureRequests], // the issuer is on loopback
  })
}

for (const method of [openid.ClientSecretBasic, openid.ClientSecretPost]) {
  const config = await discover(method(CLIENT_SECRET))
  const answer = await openid.clientCredentialsGrant(config, { scope: SCOPE, resource: RESOURCE })
  const claims = await verify(config.serverMetadata(), answer.access_token, RESOURCE, SCOPE)
  assert.equal(claims.client_id, CLIENT_ID)
  assert.equal(answer.scope, SCOPE)
  assert(answer.expiresIn() > 3590)

  const wrong = await discover(method('wrong'))
  await assert.rejects(openid.clientCredentialsGrant(wrong, { scope: SCOPE }), (error) => {
    assert(error instanceof openid.WWWAuthenticateChallengeError, error)
    assert.equal(error.status, 401)
    return true
  })
  await assert.rejects(openid.clientCredentialsGrant(config, { scope: OTHER_SCOPE }), (error) => {
    assert(error instanceof openid.ResponseBodyError, error)
    assert.equal(error.error, 'invalid_scope')
    return true
  })
}

// By a key: what the library sends by itself has no type.
const key = { key: await crypto.subtle.importKey('jwk', KEY, { name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign']), kid: KEY.kid }
const typed = { [openid.modifyAssertion]: (header) => { header.typ = assertionType } }
async function byKey(id, options) {
  const config = await openid.discovery(new URL(ISSUER), id, undefined, openid.PrivateKeyJwt(key, options), {
    algorithm: openID ? 'oidc' : 'oauth2', execute: [openid.allowInsecureRequests],
  })
  return openid.clientCredentialsGrant(config, { scope: SCOPE, resource: RESOURCE })
}
for (const [id, options] of [[KEYED_ID, typed], [OLDER_ID, undefined]]) {
  assert.equal((await byKey(id, options)).scope, SCOPE)
}
await assert.rejects(byKey(KEYED_ID, undefined), openid.WWWAuthenticateChallengeError)
report('openid-client 6')
