// oauth4webapi and openid-client with DPoP (RFC 9449), against the issuers and the guarded servers of the environment, with and
// without nonces: each step throws if a library or a check fails.
import assert from 'node:assert/strict'
import * as oauth from 'oauth4webapi'
import * as openid from 'openid-client'

const { CLIENT_ID, CLIENT_SECRET, RESOURCE, SCOPE } = process.env
const insecure = { [oauth.allowInsecureRequests]: true } // everything is on loopback

async function throughOAuth4WebAPI(issuer, api) {
  const client = { client_id: CLIENT_ID }
  const server = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...insecure }))
  assert(server.dpop_signing_alg_values_supported.includes('ES256'))
  for (const algorithm of ['ES256', 'Ed25519', 'RS256', 'PS256']) {
    const DPoP = oauth.DPoP(client, await oauth.generateKeyPair(algorithm))
    const grant = async () => {
      const response = await oauth.clientCredentialsGrantRequest(server, client, oauth.ClientSecretPost(CLIENT_SECRET),
        new URLSearchParams({ scope: SCOPE, resource: RESOURCE }), { DPoP, ...insecure })
      return oauth.processClientCredentialsResponse(server, client, response)
    }
    const again = async (f) => {
      try {
        return await f()
      } catch (error) {
        if (!oauth.isDPoPNonceError(error)) throw error
        return f()
      }
    }
    const answer = await again(grant)
    assert.equal(answer.token_type, 'dpop')
    const call = () => oauth.protectedResourceRequest(answer.access_token, 'GET', api, undefined, undefined, { DPoP, ...insecure })
    assert.equal((await again(call)).status, 200, algorithm)
    assert.equal((await call()).status, 200, algorithm)

    const stolen = oauth.DPoP(client, await oauth.generateKeyPair(algorithm))
    await assert.rejects(again(() => oauth.protectedResourceRequest(answer.access_token, 'GET', api, undefined, undefined, { DPoP: stolen, ...insecure })), (error) => {
      assert(error instanceof oauth.WWWAuthenticateChallengeError, error)
      assert.equal(error.cause[0].scheme, 'dpop')
      assert.equal(error.cause[0].parameters.error, 'invalid_token')
      return true
    })
    await assert.rejects(oauth.protectedResourceRequest(answer.access_token, 'GET', api, undefined, undefined, insecure), (error) => {
      assert(error instanceof oauth.WWWAuthenticateChallengeError, error)
      assert.deepEqual(error.cause.map((challenge) => challenge.scheme), ['bearer', 'dpop'])
      return true
    })
  }
}

async function throughOpenIDClient(issuer, api) {
  const config = await openid.discovery(issuer, CLIENT_ID, undefined, openid.ClientSecretPost(CLIENT_SECRET), {
    algorithm: 'oauth2', execute: [openid.allowInsecureRequests],
  })
  const DPoP = openid.getDPoPHandle(config, await openid.randomDPoPKeyPair())
  const answer = await openid.clientCredentialsGrant(config, { scope: SCOPE, resource: RESOURCE }, { DPoP })
  assert.equal(answer.token_type, 'dpop')
  for (let i = 0; i < 2; i++) {
    assert.equal((await openid.fetchProtectedResource(config, answer.access_token, api, 'GET', undefined, undefined, { DPoP })).status, 200)
  }
}

for (const [issuer, api] of [[process.env.ISSUER, process.env.API], [process.env.NONCE_ISSUER, process.env.NONCE_API]]) {
  await throughOAuth4WebAPI(new URL(issuer), new URL(api))
  await throughOpenIDClient(new URL(issuer), new URL(api))
}

// A request that interceptors/attach has made is valid for oauth4webapi.
const issuer = new URL(process.env.ISSUER)
const server = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...insecure }))
const headers = { authorization: process.env.ATTACH_AUTHORIZATION, dpop: process.env.ATTACH_PROOF }
const claims = await oauth.validateJwtAccessToken(server, new Request(process.env.ATTACH_URL, { headers }), RESOURCE, { requireDPoP: true, ...insecure })
assert.equal(claims.client_id, CLIENT_ID)
console.log('ok')
