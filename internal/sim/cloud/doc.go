// Package cloud simulates the part of Alibaba Cloud that upgradectl uses: the
// RPC APIs of ECS (2014-05-26) and CLB (2014-05-15), over HTTP or in process.
//
// It shares no code with any client: it imports neither an SDK nor our own
// client packages, so that it cannot share their mistakes. It takes requests
// the way the cloud does (GET or POST, query or form, HMAC-SHA1 signatures,
// indexed lists, JSON inside parameters) and refuses what it does not know
// instead of ignoring it; Cloud.Refused tells a test what a client got wrong.
//
// # Example
//
//	c := cloud.New(cloud.Config{AccessKeyID: "id", AccessKeySecret: "secret", FreeIPs: []string{"172.31.0.91"}, Machines: world})
//	defer c.Close()
//	c.AddInstance(cloud.Instance{ID: "i-web90", Name: "web-90", PrivateIP: "172.31.0.90"})
//	c.AddLoadBalancer(cloud.LoadBalancer{ID: "lb-1", Default: []cloud.Backend{{ServerID: "i-web90", Weight: 100}}})
//	srv := &http.Server{Handler: c}       // for a client in another process
//	client := &http.Client{Transport: c.Transport()} // for one in this process
//
// # Guarantees
//
//  1. A request that is wrongly signed, too old or too new, or whose nonce was
//     used before, has no effect (TestRequestsThatAreRefused, TestNonceOnce,
//     TestSignatureOfTheDocumentation).
//  2. An unknown action, an unknown, missing or malformed parameter, and a
//     parameter of the real API that is not simulated, is refused and recorded
//     (TestParameterTables, TestParameterValues).
//  3. A ClientToken creates once: the same parameters get the same answer,
//     others an error, and a failed attempt leaves the token free (TestTokens,
//     TestTokenInProgress, TestCutAfterTheEffect).
//  4. A write to a server group is done whole or not at all (TestWriteRefusals).
//  5. Images go before their snapshots, instances before their images, unless
//     forced as in the cloud (TestOrderOfDeletion).
//  6. An AutoReleaseTime fires; deletion protection does not stop it
//     (TestAutoReleaseTime).
//  7. After Close nothing happens any more, and no goroutine is left
//     (TestCloseEndsEverything; every test in a synctest bubble).
//  8. Time passes by time.Now and timers alone, so that all of it runs in a
//     bubble of testing/synctest.
//
// # Limits
//
// One account, one region. No XML answers, no version 3
// signatures, no EIPs, no prepaid orders, no spot instances, no launch
// templates, no copies of images. Traffic is somebody else's business: a
// balancer here is its configuration (LoadBalancers, OnChange). Stock, quotas
// and prices are endless; use InjectFault for their errors. Snapshots of one
// instance hold all of its disks' content, whichever disk was asked for. Error
// codes and times come from documentation and other people's clients; none of
// it was compared with the live cloud.
//
// # Errors
//
// Errors are for the client, as the cloud's envelopes. AddInstance and
// AddLoadBalancer panic when they are given a world that cannot be.
package cloud
