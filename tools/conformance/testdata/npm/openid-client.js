// openid-client against the issuer of the environment: each step throws if the library or a check fails.
import assert from 'node:assert/strict'
import * as openid from 'openid-client'

const { ISSUER, CLIENT_ID, CLIENT_SECRET, RESOURCE, SCOPE, OTHER_SCOPE } = process.env

function discover(method, algorithm) {
  return openid.discovery(new URL(ISSUER), CLIENT_ID, undefined, method, {
    algorithm,
    execute: [openid.allowInsecureRequests], // the issuer is on loopback
  })
}

for (const algorithm of ['oauth2', 'oidc']) {
  for (const method of [openid.ClientSecretBasic, openid.ClientSecretPost]) {
    const config = await discover(method(CLIENT_SECRET), algorithm)
    const answer = await openid.clientCredentialsGrant(config, { scope: SCOPE, resource: RESOURCE })
    assert(answer.access_token)
    assert.equal(answer.scope, SCOPE)
    assert(answer.expiresIn() > 3590)

    const wrong = await discover(method('wrong'), algorithm)
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
}
