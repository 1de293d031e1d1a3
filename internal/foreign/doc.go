// Package foreign lets clients that nobody here wrote use the simulated
// Alibaba Cloud, as `upgradectl simulate --serve` offers it. They are the
// judges of the simulator: each sends what it sends to the real cloud, in its
// own spelling, signs in its own way and stumbles over a wrong answer.
//
// The package has tests only, in a module of its own: the clients pull in some
// hundred packages that no user of upgradectl needs.
//
//   - packer of Debian, whose alicloud-ecs builder is compiled in: an image made
//     from an instance by both of its roads (TestPacker)
//   - Apache Libcloud of Debian, drivers for ECS and SLB, answers in XML
//     (TestLibcloud)
//   - npm @alicloud/pop-core (version 1 signatures, GET and POST), ecs20140526
//     (version 3), log (TestNode)
//   - Go aliyungo, the V2 SDKs and the log SDK (TestAliyungo, TestV2,
//     TestLogSDK)
//   - the calls of Terraform's provider and of the official command line, which
//     cannot be installed here, in their spelling and order (TestTerraform,
//     TestCommandLine)
//
// Every one of them is also refused with a wrong secret, and nothing any of
// them sends may be unknown to the simulator. The npm clients are installed by
// `npm ci` from package-lock.json.
package foreign
