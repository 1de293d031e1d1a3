// Package cloud simulates the part of Alibaba Cloud that upgradectl and the
// clients that test it use, over HTTP or in process: the RPC APIs of ECS
// (2014-05-26), CLB (2014-05-15), ALB, NLB, VPC, AliDNS, ESS and the allow
// lists of the databases (Actions lists every call), and the queries of the
// log service.
//
// It shares no code with any client: it imports neither an SDK nor our own
// client packages, so that it cannot share their mistakes. It takes requests
// the way the cloud does (GET or POST; query, form or JSON; signatures of
// version 1, HMAC-SHA1, and of version 3, ACS3-HMAC-SHA256; indexed lists, JSON
// inside parameters), answers in JSON or XML, and refuses what it does not know
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
//     used before, has no effect (FuzzUnsigned, TestRequestsThatAreRefused, TestNonceOnce,
//     TestVersion3; TestSignatureOfTheDocumentation and
//     TestSignature3OfTheDocumentation hold the published examples).
//
//  2. An unknown action, an unknown, missing or malformed parameter, and a
//     parameter of the real API that is not simulated, is refused and recorded
//     (TestParameterTables, TestParameterValues). No action takes a parameter
//     that the published contract does not have, and each requires what the
//     contract requires, by name (TestContracts; testdata/contracts.txt says
//     where it comes from, testdata/legacy.txt who sends what it lacks).
//
//  3. Every answer of ECS and CLB decodes strictly into the type that the SDK
//     declares for it (TestSimulatedAnswersAreStrict in internal/alicloud).
//     The XML of an answer is the same tree (TestXML).
//
//  4. A ClientToken creates once: the same parameters get the same answer,
//     others an error, and a failed attempt leaves the token free (TestTokens,
//     TestTokensMakeOneThingUnderEveryFault, TestTokenInProgress,
//     TestCutAfterTheEffect).
//
//  5. A write to a server group is done whole or not at all (TestWriteRefusals);
//     so are changes of tags, and calls for many instances unless they ask for
//     SuccessFirst (TestTagsInBothSpellings, TestBatches).
//
//  6. Images go before their snapshots, instances before their images, unless
//     forced as in the cloud (TestOrderOfDeletion).
//
//  7. An AutoReleaseTime fires; deletion protection does not stop it
//     (TestAutoReleaseTime).
//
//  8. After Close nothing happens any more, and no goroutine is left
//     (TestCloseEndsEverything; every test in a synctest bubble).
//
//  9. Time passes by time.Now and timers alone, so that all of it runs in a
//     bubble of testing/synctest (TestBehaviourDelaysFollowTheClock).
//
//  10. Whatever is asked, in whatever order: every answer is a whole one, never
//     a 5xx, and what the account holds fits together (TestRandomWalk).
//
//  11. The log service takes both forms of GetLogs and both of its signatures,
//     runs exactly the queries it knows and refuses the others (TestLogQueries,
//     TestLogRefusals, FuzzLogQuery). Rows show only after their delay, and a
//     partial answer says so (TestLogProgress).
//
//  12. What may lead to a host besides balancers can be told and is shown:
//     elastic addresses, NAT entries, HaVips, routes, scaling groups, names,
//     allow lists (TestElasticAddresses, TestPathLists, TestDatabaseAllowLists);
//     forwarding rules can be made (TestForwardingRules).
//
// What the real cloud does and nobody expects has tests named TestBehaviour…;
// of balancers: TestBusyAfterEachWrite, TestWriteRefusals (20 servers a call),
// TestWrites (what is not named keeps its values, removing what is not there
// is ignored), TestWeightTypes (a string here, a number there); of logs:
// TestLogProgress; of traffic: TestRoundRobinIgnoresWeights and
// TestStickySessionsIgnoreWeightZero in internal/sim/traffic.
//
// # Knobs
//
// Config has the durations, Speed, Latency, Throttle, VisibleAfter (what was
// made is not seen at once) and TokenExpires; SetStock, SetQuota, AddSystemEvent, Deny, Allow and
// SetConsole change the world while it runs. InjectFault spoils answers before
// or after their effect (error envelope, numeric code, HTML, empty body, lost
// connection), or what a good answer began (FaultFails, FaultStuck).
//
// # Limits
//
// One account, one region. Instances that are made by requests are PostPaid or
// PrePaid in name only: nothing expires but AutoReleaseTime. No spot instances,
// no launch templates, no copies to other regions, no secondary interfaces but
// those that AddInstance was told of. Traffic is somebody else's business: a
// balancer here is its configuration (LoadBalancers, OnChange). There are the
// instance types of a fixed table, stock unless SetStock says otherwise, and
// prices that are made up. Snapshots of one instance hold all of its disks'
// content, whichever disk was asked for, and so does what ResetDisk puts back.
// Permissions are a list of denied actions, not policies.
//
// Times come from documentation and from other people's clients; none of it was
// compared with the live cloud. So do the error codes. These are guesses, made
// from sister calls because no table was found: InvalidSnapshotGroupId.NotFound
// of DeleteSnapshotGroup, and that a snapshot stays that a disk was made of;
// InvalidParameter for too many or too big disks of CreateSnapshotGroup;
// OperationDenied for changes to other people's images; InvalidTimeStamp.*, UnsupportedParameter and
// UnsupportedOperation, which stand for "not simulated"; the HTTP status 400 of
// DryRunOperation; the values of AccessDeniedDetail but AuthAction.
//
// # Errors
//
// Errors are for the client, as the cloud's envelopes. AddInstance and the
// other Add… methods panic when they are given a world that cannot be.
package cloud
