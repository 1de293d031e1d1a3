package alicloud_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk"
	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/auth/credentials"
	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/ecs"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/slb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

// answers are the SDK's types of the answers to the actions of ECS and CLB
// that are simulated.
var answers = map[string]func() any{
	"ecs:AddTags":                                    func() any { return ecs.CreateAddTagsResponse() },
	"ecs:AllocatePublicIpAddress":                    func() any { return ecs.CreateAllocatePublicIpAddressResponse() },
	"ecs:AttachDisk":                                 func() any { return ecs.CreateAttachDiskResponse() },
	"ecs:AttachKeyPair":                              func() any { return ecs.CreateAttachKeyPairResponse() },
	"ecs:AuthorizeSecurityGroup":                     func() any { return ecs.CreateAuthorizeSecurityGroupResponse() },
	"ecs:AuthorizeSecurityGroupEgress":               func() any { return ecs.CreateAuthorizeSecurityGroupEgressResponse() },
	"ecs:CopyImage":                                  func() any { return ecs.CreateCopyImageResponse() },
	"ecs:CreateDisk":                                 func() any { return ecs.CreateCreateDiskResponse() },
	"ecs:CreateImage":                                func() any { return ecs.CreateCreateImageResponse() },
	"ecs:CreateInstance":                             func() any { return ecs.CreateCreateInstanceResponse() },
	"ecs:CreateKeyPair":                              func() any { return ecs.CreateCreateKeyPairResponse() },
	"ecs:CreateSecurityGroup":                        func() any { return ecs.CreateCreateSecurityGroupResponse() },
	"ecs:CreateSnapshot":                             func() any { return ecs.CreateCreateSnapshotResponse() },
	"ecs:CreateSnapshotGroup":                        func() any { return ecs.CreateCreateSnapshotGroupResponse() },
	"ecs:CreateVSwitch":                              func() any { return ecs.CreateCreateVSwitchResponse() },
	"ecs:CreateVpc":                                  func() any { return ecs.CreateCreateVpcResponse() },
	"ecs:DeleteDisk":                                 func() any { return ecs.CreateDeleteDiskResponse() },
	"ecs:DeleteImage":                                func() any { return ecs.CreateDeleteImageResponse() },
	"ecs:DeleteInstance":                             func() any { return ecs.CreateDeleteInstanceResponse() },
	"ecs:DeleteInstances":                            func() any { return ecs.CreateDeleteInstancesResponse() },
	"ecs:DeleteKeyPairs":                             func() any { return ecs.CreateDeleteKeyPairsResponse() },
	"ecs:DeleteSecurityGroup":                        func() any { return ecs.CreateDeleteSecurityGroupResponse() },
	"ecs:DeleteSnapshot":                             func() any { return ecs.CreateDeleteSnapshotResponse() },
	"ecs:DeleteSnapshotGroup":                        func() any { return ecs.CreateDeleteSnapshotGroupResponse() },
	"ecs:DeleteVSwitch":                              func() any { return ecs.CreateDeleteVSwitchResponse() },
	"ecs:DeleteVpc":                                  func() any { return ecs.CreateDeleteVpcResponse() },
	"ecs:DescribeAccountAttributes":                  func() any { return ecs.CreateDescribeAccountAttributesResponse() },
	"ecs:DescribeInstanceHistoryEvents":              func() any { return ecs.CreateDescribeInstanceHistoryEventsResponse() },
	"ecs:DescribeAvailableResource":                  func() any { return ecs.CreateDescribeAvailableResourceResponse() },
	"ecs:DescribeCloudAssistantStatus":               func() any { return ecs.CreateDescribeCloudAssistantStatusResponse() },
	"ecs:DescribeDisks":                              func() any { return ecs.CreateDescribeDisksResponse() },
	"ecs:DescribeImageSharePermission":               func() any { return ecs.CreateDescribeImageSharePermissionResponse() },
	"ecs:DescribeImages":                             func() any { return ecs.CreateDescribeImagesResponse() },
	"ecs:DescribeInstanceAttachmentAttributes":       func() any { return ecs.CreateDescribeInstanceAttachmentAttributesResponse() },
	"ecs:DescribeInstanceAttribute":                  func() any { return ecs.CreateDescribeInstanceAttributeResponse() },
	"ecs:DescribeInstanceAutoRenewAttribute":         func() any { return ecs.CreateDescribeInstanceAutoRenewAttributeResponse() },
	"ecs:DescribeInstanceMaintenanceAttributes":      func() any { return ecs.CreateDescribeInstanceMaintenanceAttributesResponse() },
	"ecs:DescribeInstanceRamRole":                    func() any { return ecs.CreateDescribeInstanceRamRoleResponse() },
	"ecs:DescribeInstanceStatus":                     func() any { return ecs.CreateDescribeInstanceStatusResponse() },
	"ecs:DescribeInstanceTypes":                      func() any { return ecs.CreateDescribeInstanceTypesResponse() },
	"ecs:DescribeInstances":                          func() any { return ecs.CreateDescribeInstancesResponse() },
	"ecs:DescribeInvocationResults":                  func() any { return ecs.CreateDescribeInvocationResultsResponse() },
	"ecs:DescribeInvocations":                        func() any { return ecs.CreateDescribeInvocationsResponse() },
	"ecs:DescribeKeyPairs":                           func() any { return ecs.CreateDescribeKeyPairsResponse() },
	"ecs:DescribeNetworkInterfaces":                  func() any { return ecs.CreateDescribeNetworkInterfacesResponse() },
	"ecs:DescribePrice":                              func() any { return ecs.CreateDescribePriceResponse() },
	"ecs:DescribeRegions":                            func() any { return ecs.CreateDescribeRegionsResponse() },
	"ecs:DescribeSecurityGroupAttribute":             func() any { return ecs.CreateDescribeSecurityGroupAttributeResponse() },
	"ecs:DescribeSecurityGroups":                     func() any { return ecs.CreateDescribeSecurityGroupsResponse() },
	"ecs:DescribeSnapshotGroups":                     func() any { return ecs.CreateDescribeSnapshotGroupsResponse() },
	"ecs:DescribeSnapshots":                          func() any { return ecs.CreateDescribeSnapshotsResponse() },
	"ecs:DescribeTags":                               func() any { return ecs.CreateDescribeTagsResponse() },
	"ecs:DescribeTasks":                              func() any { return ecs.CreateDescribeTasksResponse() },
	"ecs:DescribeUserData":                           func() any { return ecs.CreateDescribeUserDataResponse() },
	"ecs:DescribeVSwitches":                          func() any { return ecs.CreateDescribeVSwitchesResponse() },
	"ecs:DescribeVpcs":                               func() any { return ecs.CreateDescribeVpcsResponse() },
	"ecs:DescribeZones":                              func() any { return ecs.CreateDescribeZonesResponse() },
	"ecs:DetachDisk":                                 func() any { return ecs.CreateDetachDiskResponse() },
	"ecs:DetachKeyPair":                              func() any { return ecs.CreateDetachKeyPairResponse() },
	"ecs:GetInstanceConsoleOutput":                   func() any { return ecs.CreateGetInstanceConsoleOutputResponse() },
	"ecs:GetInstanceScreenshot":                      func() any { return ecs.CreateGetInstanceScreenshotResponse() },
	"ecs:ImportKeyPair":                              func() any { return ecs.CreateImportKeyPairResponse() },
	"ecs:JoinSecurityGroup":                          func() any { return ecs.CreateJoinSecurityGroupResponse() },
	"ecs:LeaveSecurityGroup":                         func() any { return ecs.CreateLeaveSecurityGroupResponse() },
	"ecs:ListTagResources":                           func() any { return ecs.CreateListTagResourcesResponse() },
	"ecs:ModifyDiskAttribute":                        func() any { return ecs.CreateModifyDiskAttributeResponse() },
	"ecs:ModifyImageAttribute":                       func() any { return ecs.CreateModifyImageAttributeResponse() },
	"ecs:ModifyImageSharePermission":                 func() any { return ecs.CreateModifyImageSharePermissionResponse() },
	"ecs:ModifyInstanceAttribute":                    func() any { return ecs.CreateModifyInstanceAttributeResponse() },
	"ecs:ModifyInstanceAutoReleaseTime":              func() any { return ecs.CreateModifyInstanceAutoReleaseTimeResponse() },
	"ecs:ModifySecurityGroupAttribute":               func() any { return ecs.CreateModifySecurityGroupAttributeResponse() },
	"ecs:ModifySecurityGroupPolicy":                  func() any { return ecs.CreateModifySecurityGroupPolicyResponse() },
	"ecs:ModifySnapshotAttribute":                    func() any { return ecs.CreateModifySnapshotAttributeResponse() },
	"ecs:ModifyVSwitchAttribute":                     func() any { return ecs.CreateModifyVSwitchAttributeResponse() },
	"ecs:ModifyVpcAttribute":                         func() any { return ecs.CreateModifyVpcAttributeResponse() },
	"ecs:RebootInstance":                             func() any { return ecs.CreateRebootInstanceResponse() },
	"ecs:RemoveTags":                                 func() any { return ecs.CreateRemoveTagsResponse() },
	"ecs:ReplaceSystemDisk":                          func() any { return ecs.CreateReplaceSystemDiskResponse() },
	"ecs:ResetDisk":                                  func() any { return ecs.CreateResetDiskResponse() },
	"ecs:ResetDisks":                                 func() any { return ecs.CreateResetDisksResponse() },
	"ecs:RevokeSecurityGroup":                        func() any { return ecs.CreateRevokeSecurityGroupResponse() },
	"ecs:RevokeSecurityGroupEgress":                  func() any { return ecs.CreateRevokeSecurityGroupEgressResponse() },
	"ecs:RunCommand":                                 func() any { return ecs.CreateRunCommandResponse() },
	"ecs:RunInstances":                               func() any { return ecs.CreateRunInstancesResponse() },
	"ecs:StartInstance":                              func() any { return ecs.CreateStartInstanceResponse() },
	"ecs:StartInstances":                             func() any { return ecs.CreateStartInstancesResponse() },
	"ecs:StopInstance":                               func() any { return ecs.CreateStopInstanceResponse() },
	"ecs:StopInstances":                              func() any { return ecs.CreateStopInstancesResponse() },
	"ecs:TagResources":                               func() any { return ecs.CreateTagResourcesResponse() },
	"ecs:UntagResources":                             func() any { return ecs.CreateUntagResourcesResponse() },
	"slb:AddBackendServers":                          func() any { return slb.CreateAddBackendServersResponse() },
	"slb:AddVServerGroupBackendServers":              func() any { return slb.CreateAddVServerGroupBackendServersResponse() },
	"slb:CreateRules":                                func() any { return slb.CreateCreateRulesResponse() },
	"slb:DeleteAccessLogsDownloadAttribute":          func() any { return slb.CreateDeleteAccessLogsDownloadAttributeResponse() },
	"slb:DeleteRules":                                func() any { return slb.CreateDeleteRulesResponse() },
	"slb:DescribeAccessLogsDownloadAttribute":        func() any { return slb.CreateDescribeAccessLogsDownloadAttributeResponse() },
	"slb:DescribeHealthStatus":                       func() any { return slb.CreateDescribeHealthStatusResponse() },
	"slb:DescribeLoadBalancerAttribute":              func() any { return slb.CreateDescribeLoadBalancerAttributeResponse() },
	"slb:DescribeLoadBalancerListeners":              func() any { return slb.CreateDescribeLoadBalancerListenersResponse() },
	"slb:DescribeLoadBalancers":                      func() any { return slb.CreateDescribeLoadBalancersResponse() },
	"slb:DescribeMasterSlaveServerGroups":            func() any { return slb.CreateDescribeMasterSlaveServerGroupsResponse() },
	"slb:DescribeRules":                              func() any { return slb.CreateDescribeRulesResponse() },
	"slb:DescribeVServerGroupAttribute":              func() any { return slb.CreateDescribeVServerGroupAttributeResponse() },
	"slb:DescribeVServerGroups":                      func() any { return slb.CreateDescribeVServerGroupsResponse() },
	"slb:RemoveBackendServers":                       func() any { return slb.CreateRemoveBackendServersResponse() },
	"slb:RemoveVServerGroupBackendServers":           func() any { return slb.CreateRemoveVServerGroupBackendServersResponse() },
	"slb:CreateLoadBalancer":                         func() any { return slb.CreateCreateLoadBalancerResponse() },
	"slb:DeleteLoadBalancer":                         func() any { return slb.CreateDeleteLoadBalancerResponse() },
	"slb:SetLoadBalancerName":                        func() any { return slb.CreateSetLoadBalancerNameResponse() },
	"slb:SetLoadBalancerStatus":                      func() any { return slb.CreateSetLoadBalancerStatusResponse() },
	"slb:SetLoadBalancerDeleteProtection":            func() any { return slb.CreateSetLoadBalancerDeleteProtectionResponse() },
	"slb:SetLoadBalancerModificationProtection":      func() any { return slb.CreateSetLoadBalancerModificationProtectionResponse() },
	"slb:CreateLoadBalancerHTTPListener":             func() any { return slb.CreateCreateLoadBalancerHTTPListenerResponse() },
	"slb:CreateLoadBalancerHTTPSListener":            func() any { return slb.CreateCreateLoadBalancerHTTPSListenerResponse() },
	"slb:CreateLoadBalancerTCPListener":              func() any { return slb.CreateCreateLoadBalancerTCPListenerResponse() },
	"slb:CreateLoadBalancerUDPListener":              func() any { return slb.CreateCreateLoadBalancerUDPListenerResponse() },
	"slb:DeleteLoadBalancerListener":                 func() any { return slb.CreateDeleteLoadBalancerListenerResponse() },
	"slb:StartLoadBalancerListener":                  func() any { return slb.CreateStartLoadBalancerListenerResponse() },
	"slb:StopLoadBalancerListener":                   func() any { return slb.CreateStopLoadBalancerListenerResponse() },
	"slb:CreateVServerGroup":                         func() any { return slb.CreateCreateVServerGroupResponse() },
	"slb:DeleteVServerGroup":                         func() any { return slb.CreateDeleteVServerGroupResponse() },
	"slb:TagResources":                               func() any { return slb.CreateTagResourcesResponse() },
	"slb:UntagResources":                             func() any { return slb.CreateUntagResourcesResponse() },
	"slb:ListTagResources":                           func() any { return slb.CreateListTagResourcesResponse() },
	"slb:DescribeLoadBalancerHTTPListenerAttribute":  func() any { return slb.CreateDescribeLoadBalancerHTTPListenerAttributeResponse() },
	"slb:DescribeLoadBalancerHTTPSListenerAttribute": func() any { return slb.CreateDescribeLoadBalancerHTTPSListenerAttributeResponse() },
	"slb:DescribeLoadBalancerTCPListenerAttribute":   func() any { return slb.CreateDescribeLoadBalancerTCPListenerAttributeResponse() },
	"slb:DescribeLoadBalancerUDPListenerAttribute":   func() any { return slb.CreateDescribeLoadBalancerUDPListenerAttributeResponse() },
	"slb:SetAccessLogsDownloadAttribute":             func() any { return slb.CreateSetAccessLogsDownloadAttributeResponse() },
	"slb:SetBackendServers":                          func() any { return slb.CreateSetBackendServersResponse() },
	"slb:CreateMasterSlaveServerGroup":               func() any { return slb.CreateCreateMasterSlaveServerGroupResponse() },
	"slb:DeleteMasterSlaveServerGroup":               func() any { return slb.CreateDeleteMasterSlaveServerGroupResponse() },
	"slb:DescribeMasterSlaveServerGroupAttribute":    func() any { return slb.CreateDescribeMasterSlaveServerGroupAttributeResponse() },
	"slb:DescribeRuleAttribute":                      func() any { return slb.CreateDescribeRuleAttributeResponse() },
	"slb:ModifyVServerGroupBackendServers":           func() any { return slb.CreateModifyVServerGroupBackendServersResponse() },
	"slb:SetLoadBalancerHTTPListenerAttribute":       func() any { return slb.CreateSetLoadBalancerHTTPListenerAttributeResponse() },
	"slb:SetLoadBalancerHTTPSListenerAttribute":      func() any { return slb.CreateSetLoadBalancerHTTPSListenerAttributeResponse() },
	"slb:SetLoadBalancerTCPListenerAttribute":        func() any { return slb.CreateSetLoadBalancerTCPListenerAttributeResponse() },
	"slb:SetLoadBalancerUDPListenerAttribute":        func() any { return slb.CreateSetLoadBalancerUDPListenerAttributeResponse() },
	"slb:SetRule":                                    func() any { return slb.CreateSetRuleResponse() },
	"slb:SetVServerGroupAttribute":                   func() any { return slb.CreateSetVServerGroupAttributeResponse() },
}

// beyond are members that the cloud sends and the SDK of 2025 does not know,
// with who reads them.
var beyond = map[string]string{
	"ecs:DescribeImages": "Usable", // the Terraform provider waits for it
}

// story calls every simulated action of ECS and CLB at least once with
// success. A line is a product, an action and its parameters; > NAME=PATH
// keeps something of the answer for later lines, as $NAME. A line "wait D"
// lets D pass.
const story = `
ecs DescribeRegions
ecs DescribeZones
ecs DescribeInstanceTypes InstanceTypeFamily=ecs.g6
ecs DescribeAvailableResource DestinationResource=InstanceType InstanceType=ecs.g6.large
ecs DescribeAvailableResource DestinationResource=SystemDisk InstanceType=ecs.g6.large
ecs DescribePrice InstanceType=ecs.g6.large SystemDisk.Category=cloud_essd SystemDisk.Size=40 DataDisk.1.Size=100 InternetMaxBandwidthOut=5
ecs DescribeTasks
ecs DescribeAccountAttributes AttributeName.1=max-postpaid-instance-vcpu-count AttributeName.2=used-postpaid-instance-vcpu-count
ecs DescribeAccountAttributes
ecs DescribeInstanceHistoryEvents InstanceEventCycleStatus.1=Scheduled

ecs CreateVpc CidrBlock=10.0.0.0/8 VpcName=net > vpc=VpcId
wait 5s
ecs DescribeVpcs VpcId=$vpc
ecs ModifyVpcAttribute VpcId=$vpc VpcName=other
ecs CreateVSwitch VpcId=$vpc ZoneId=cn-hangzhou-h CidrBlock=10.0.1.0/24 > vsw=VSwitchId
wait 5s
ecs DescribeVSwitches VpcId=$vpc
ecs ModifyVSwitchAttribute VSwitchId=$vsw VSwitchName=other
ecs CreateSecurityGroup VpcId=$vpc SecurityGroupName=web > sg=SecurityGroupId
ecs CreateSecurityGroup VpcId=$vpc SecurityGroupName=more > sg2=SecurityGroupId
ecs AuthorizeSecurityGroup SecurityGroupId=$sg IpProtocol=tcp PortRange=22/22 SourceCidrIp=10.0.0.0/8
ecs AuthorizeSecurityGroupEgress SecurityGroupId=$sg IpProtocol=tcp PortRange=80/80 DestCidrIp=0.0.0.0/0
ecs DescribeSecurityGroups VpcId=$vpc
ecs DescribeSecurityGroupAttribute SecurityGroupId=$sg
ecs ModifySecurityGroupAttribute SecurityGroupId=$sg SecurityGroupName=web2
ecs ModifySecurityGroupPolicy SecurityGroupId=$sg InnerAccessPolicy=Drop
ecs RevokeSecurityGroup SecurityGroupId=$sg IpProtocol=tcp PortRange=22/22 SourceCidrIp=10.0.0.0/8
ecs RevokeSecurityGroupEgress SecurityGroupId=$sg IpProtocol=tcp PortRange=80/80 DestCidrIp=0.0.0.0/0
ecs CreateKeyPair KeyPairName=kp
ecs ImportKeyPair KeyPairName=kp2 PublicKeyBody=$pub
ecs DescribeKeyPairs KeyPairName=kp

ecs DescribeImages ImageOwnerAlias=system
ecs CreateInstance ImageId=centos_7_9_x64_20G InstanceType=ecs.g6.large VSwitchId=$vsw SecurityGroupId=$sg InstanceName=made InternetMaxBandwidthOut=5 SystemDisk.Category=cloud_essd DataDisk.1.Size=50 DataDisk.1.Category=cloud_essd DataDisk.1.DeleteWithInstance=true Tag.1.Key=a Tag.1.Value=b > i=InstanceId
wait 1m
ecs AttachKeyPair InstanceIds=["$i"] KeyPairName=kp
ecs StartInstance InstanceId=$i
wait 1m
ecs DescribeInstances InstanceIds=["$i"] AdditionalAttributes.1=META_OPTIONS
ecs DescribeInstanceAttribute InstanceId=$i
ecs DescribeInstanceStatus InstanceId.1=$i
ecs DescribeInstanceRamRole InstanceIds=["$i"]
ecs DescribeUserData InstanceId=$i
ecs DescribeInstanceMaintenanceAttributes InstanceId.1=$i
ecs DescribeInstanceAttachmentAttributes InstanceIds=["$i"]
ecs DescribeInstanceAutoRenewAttribute InstanceId=i-prepaid
ecs DescribeNetworkInterfaces InstanceId=$i
ecs JoinSecurityGroup SecurityGroupId=$sg2 InstanceId=$i
ecs LeaveSecurityGroup SecurityGroupId=$sg2 InstanceId=$i
ecs ModifyInstanceAttribute InstanceId=$i InstanceName=renamed
ecs ModifyInstanceAutoReleaseTime InstanceId=$i AutoReleaseTime=$later
ecs GetInstanceConsoleOutput InstanceId=$i
ecs GetInstanceScreenshot InstanceId=$i
ecs AllocatePublicIpAddress InstanceId=$i
ecs RebootInstance InstanceId=$i
wait 2m
ecs DescribeCloudAssistantStatus InstanceId.1=$i
ecs RunCommand Type=RunShellScript CommandContent=true InstanceId.1=$i > inv=InvokeId
wait 1s
ecs DescribeInvocations InvokeId=$inv IncludeOutput=true
ecs DescribeInvocationResults InvokeId=$inv

ecs DescribeDisks InstanceId=$i > sys=Disks.Disk.0.DiskId > data=Disks.Disk.1.DiskId
ecs CreateDisk ZoneId=cn-hangzhou-h Size=20 DiskCategory=cloud_essd > d=DiskId
wait 10s
ecs ModifyDiskAttribute DiskId=$d DiskName=more
ecs AttachDisk DiskId=$d InstanceId=$i
wait 10s
ecs DetachDisk DiskId=$d InstanceId=$i
wait 10s
ecs DescribeDisks DiskIds=["$d"]
ecs DeleteDisk DiskId=$d

ecs CreateSnapshotGroup InstanceId=$i Name=both Tag.1.Key=a Tag.1.Value=b > g=SnapshotGroupId
wait 4m
ecs DescribeSnapshotGroups SnapshotGroupId.1=$g > gs=SnapshotGroups.SnapshotGroup.0.Snapshots.Snapshot.0.SnapshotId > gd=SnapshotGroups.SnapshotGroup.0.Snapshots.Snapshot.1.SnapshotId
ecs CreateSnapshot DiskId=$sys SnapshotName=one Tag.1.Key=a Tag.1.Value=b > s=SnapshotId
wait 4m
ecs DescribeSnapshots SnapshotIds=["$s"]
ecs ModifySnapshotAttribute SnapshotId=$s SnapshotName=two RetentionDays=7
ecs CreateImage SnapshotId=$s ImageName=copy DetectionStrategy=Standard > img=ImageId
ecs DescribeImages ImageId=$img Status=Creating,Waiting,Available
wait 5m
ecs ModifyImageAttribute ImageId=$img Description=x
ecs ModifyImageSharePermission ImageId=$img AddAccount.1=123
ecs DescribeImageSharePermission ImageId=$img
ecs ModifyImageSharePermission ImageId=$img RemoveAccount.1=123
ecs CopyImage ImageId=$img DestinationImageName=copy2 > img2=ImageId
wait 5m
ecs RunInstances ImageId=$img InstanceType=ecs.g6.large VSwitchId=vsw-sim SecurityGroupIds.1=sg-sim > r=InstanceIdSets.InstanceIdSet.0
wait 1m

ecs TagResources ResourceType=instance ResourceId.1=$i Tag.1.Key=x Tag.1.Value=y
ecs ListTagResources ResourceType=instance ResourceId.1=$i
ecs UntagResources ResourceType=instance ResourceId.1=$i TagKey.1=x
ecs AddTags ResourceType=image ResourceId=$img Tag.1.Key=x Tag.1.Value=y
ecs DescribeTags ResourceType=image
ecs RemoveTags ResourceType=image ResourceId=$img Tag.1.Key=x

slb DescribeLoadBalancers
slb DescribeLoadBalancerAttribute LoadBalancerId=lb-1
slb DescribeLoadBalancerListeners LoadBalancerId.1=lb-1
slb DescribeVServerGroups LoadBalancerId=lb-1 IncludeListener=true IncludeRule=true
slb DescribeVServerGroupAttribute VServerGroupId=rsp-1
slb DescribeMasterSlaveServerGroups LoadBalancerId=lb-1 IncludeListener=true
slb DescribeRules LoadBalancerId=lb-1 ListenerPort=80
slb DescribeHealthStatus LoadBalancerId=lb-1
slb AddBackendServers LoadBalancerId=lb-1 BackendServers=[{'ServerId':'i-web89','Weight':'10','Type':'ecs'}]
wait 5s
slb SetBackendServers LoadBalancerId=lb-1 BackendServers=[{"ServerId":"i-web89","Weight":20}]
wait 5s
slb RemoveBackendServers LoadBalancerId=lb-1 BackendServers=[{"ServerId":"i-web89","Weight":20}]
wait 5s
slb AddVServerGroupBackendServers VServerGroupId=rsp-1 BackendServers=[{"ServerId":"i-web89","Port":8080,"Weight":10}]
wait 5s
slb SetVServerGroupAttribute VServerGroupId=rsp-1 BackendServers=[{"ServerId":"i-web89","Port":8080,"Weight":20}]
wait 5s
slb RemoveVServerGroupBackendServers VServerGroupId=rsp-1 BackendServers=[{"ServerId":"i-web89","Port":"8080"}]
wait 5s
slb CreateRules LoadBalancerId=lb-1 ListenerPort=80 RuleList=[{"RuleName":"n","Domain":"b.example.com","VServerGroupId":"rsp-1"}] > rule=Rules.Rule.0.RuleId
wait 5s
slb DeleteRules RuleIds=["$rule"]
wait 5s
slb SetAccessLogsDownloadAttribute LoadBalancerId=lb-1 LogsDownloadAttributes=[{"logProject":"p","logStore":"s","loadBalancerId":"lb-1","logType":"layer7"}]
wait 5s
slb DescribeAccessLogsDownloadAttribute LoadBalancerId=lb-1
slb DeleteAccessLogsDownloadAttribute LoadBalancerId=lb-1 LogsDownloadAttributes=[{"logProject":"p","logStore":"s","loadBalancerId":"lb-1","logType":"layer7"}]
slb CreateLoadBalancer LoadBalancerName=made VSwitchId=vsw-sim AddressType=intranet LoadBalancerSpec=slb.s1.small Tag.1.Key=a Tag.1.Value=b > lb=LoadBalancerId
slb CreateVServerGroup LoadBalancerId=$lb VServerGroupName=g BackendServers=[{'ServerId':'i-web90','Port':'8080','Weight':'10'}] Tag.1.Key=a Tag.1.Value=b > rsp=VServerGroupId
wait 3s
slb SetLoadBalancerName LoadBalancerId=$lb LoadBalancerName=renamed
wait 3s
slb SetLoadBalancerStatus LoadBalancerId=$lb LoadBalancerStatus=inactive
wait 3s
slb SetLoadBalancerDeleteProtection LoadBalancerId=$lb DeleteProtection=off
wait 3s
slb SetLoadBalancerModificationProtection LoadBalancerId=$lb ModificationProtectionStatus=ConsoleProtection ModificationProtectionReason=r
wait 3s
slb CreateLoadBalancerHTTPListener LoadBalancerId=$lb ListenerPort=80 BackendServerPort=8080 Bandwidth=-1 HealthCheck=on HealthCheckURI=/ok HealthCheckTimeout=4 StickySession=on StickySessionType=insert CookieTimeout=60 XForwardedFor_proto=on Gzip=on
wait 3s
slb CreateLoadBalancerHTTPSListener LoadBalancerId=$lb ListenerPort=443 VServerGroupId=$rsp Bandwidth=-1 HealthCheck=off StickySession=off ServerCertificateId=cert TLSCipherPolicy=tls_cipher_policy_1_2
wait 3s
slb CreateLoadBalancerTCPListener LoadBalancerId=$lb ListenerPort=81 VServerGroupId=$rsp Bandwidth=-1 HealthCheckType=tcp healthCheckInterval=3 PersistenceTimeout=0 ConnectionDrain=on ConnectionDrainTimeout=30
wait 3s
slb CreateLoadBalancerUDPListener LoadBalancerId=$lb ListenerPort=82 BackendServerPort=53 Bandwidth=-1
wait 3s
slb DescribeLoadBalancerHTTPListenerAttribute LoadBalancerId=$lb ListenerPort=80
slb DescribeLoadBalancerHTTPSListenerAttribute LoadBalancerId=$lb ListenerPort=443
slb DescribeLoadBalancerTCPListenerAttribute LoadBalancerId=$lb ListenerPort=81
slb DescribeLoadBalancerUDPListenerAttribute LoadBalancerId=$lb ListenerPort=82
slb DescribeLoadBalancerHTTPListenerAttribute LoadBalancerId=lb-1 ListenerPort=80
slb DescribeLoadBalancerAttribute LoadBalancerId=$lb
slb SetLoadBalancerHTTPListenerAttribute LoadBalancerId=$lb ListenerPort=80 Scheduler=rr Description=new IdleTimeout=20
wait 3s
slb SetLoadBalancerTCPListenerAttribute LoadBalancerId=$lb ListenerPort=81 Scheduler=wlc EstablishedTimeout=60 ConnectionDrain=off
wait 3s
slb SetLoadBalancerUDPListenerAttribute LoadBalancerId=$lb ListenerPort=82 healthCheckReq=hi healthCheckExp=ho
wait 3s
slb SetLoadBalancerHTTPSListenerAttribute LoadBalancerId=$lb ListenerPort=443 EnableHttp2=off StickySession=on StickySessionType=server Cookie=c
wait 3s
slb DescribeLoadBalancerUDPListenerAttribute LoadBalancerId=$lb ListenerPort=82
slb DescribeLoadBalancerListeners LoadBalancerId.1=$lb
slb ModifyVServerGroupBackendServers VServerGroupId=$rsp OldBackendServers=[{"ServerId":"i-web90","Port":8080}] NewBackendServers=[{"ServerId":"i-web90","Port":8081,"Weight":5}]
wait 3s
slb CreateRules LoadBalancerId=$lb ListenerPort=80 RuleList=[{"RuleName":"r","Domain":"c.example.com","VServerGroupId":"$rsp"}] > rule=Rules.Rule.0.RuleId
wait 3s
slb SetRule RuleId=$rule ListenerSync=off Scheduler=wlc StickySession=on StickySessionType=insert CookieTimeout=100 HealthCheck=on HealthCheckURI=/x
wait 3s
slb DescribeRuleAttribute RuleId=$rule
slb DescribeRules LoadBalancerId=$lb ListenerPort=80
slb DescribeLoadBalancerHTTPListenerAttribute LoadBalancerId=$lb ListenerPort=80
slb DeleteRules RuleIds=["$rule"]
wait 3s
slb CreateMasterSlaveServerGroup LoadBalancerId=$lb MasterSlaveServerGroupName=pair MasterSlaveBackendServers=[{"ServerId":"i-web90","Port":53,"Weight":100,"ServerType":"Master"},{"ServerId":"i-web90","Port":54,"Weight":100,"ServerType":"Slave"}] > ms=MasterSlaveServerGroupId
wait 3s
slb DescribeMasterSlaveServerGroupAttribute MasterSlaveServerGroupId=$ms
slb DeleteMasterSlaveServerGroup MasterSlaveServerGroupId=$ms
wait 3s
slb StartLoadBalancerListener LoadBalancerId=$lb ListenerPort=81 ListenerProtocol=tcp
wait 3s
slb StopLoadBalancerListener LoadBalancerId=$lb ListenerPort=81
wait 3s
slb DeleteLoadBalancerListener LoadBalancerId=$lb ListenerPort=443
wait 3s
slb DeleteLoadBalancerListener LoadBalancerId=$lb ListenerPort=81
wait 3s
slb TagResources ResourceType=vservergroup ResourceId.1=$rsp Tag.1.Key=c Tag.1.Value=d
slb ListTagResources ResourceType=vservergroup ResourceId.1=$rsp
slb UntagResources ResourceType=vservergroup ResourceId.1=$rsp TagKey.1=c
slb DeleteVServerGroup VServerGroupId=$rsp
wait 3s
slb DeleteLoadBalancer LoadBalancerId=$lb

ecs StopInstances InstanceId.1=$i
wait 1m
ecs ResetDisk DiskId=$sys SnapshotId=$s
wait 1m
ecs ResetDisks Disk.1.DiskId=$sys Disk.1.SnapshotId=$gs Disk.2.DiskId=$data Disk.2.SnapshotId=$gd
wait 1m
ecs ReplaceSystemDisk InstanceId=$i ImageId=$img
wait 1m
ecs StartInstances InstanceId.1=$i
wait 1m
ecs DetachKeyPair InstanceIds=["$i"] KeyPairName=kp
ecs StopInstance InstanceId=$i
wait 1m
ecs DeleteInstances InstanceId.1=$i
ecs DeleteInstance InstanceId=$r Force=true
ecs DeleteImage ImageId=$img
ecs DeleteImage ImageId=$img2
ecs DeleteSnapshot SnapshotId=$s
ecs DeleteSnapshotGroup SnapshotGroupId=$g
ecs DeleteKeyPairs KeyPairNames=["kp","kp2"]
ecs DeleteSecurityGroup SecurityGroupId=$sg
ecs DeleteSecurityGroup SecurityGroupId=$sg2
ecs DeleteVSwitch VSwitchId=$vsw
ecs DeleteVpc VpcId=$vpc
`

// recorder keeps the body of the last answer.
type recorder struct {
	next http.RoundTripper
	mu   sync.Mutex
	body []byte
}

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := r.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.body = body
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

func (r *recorder) last() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.body
}

// at returns the string under a path like Disks.Disk.0.DiskId.
func at(t *testing.T, body []byte, path string) string {
	t.Helper()
	var v any
	require.NoError(t, json.Unmarshal(body, &v))
	for p := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[p]
		case []any:
			n := 0
			_, err := fmt.Sscan(p, &n)
			require.NoError(t, err)
			require.Lessf(t, n, len(x), "%s of %s", path, body)
			v = x[n]
		}
	}
	s, ok := v.(string)
	require.Truef(t, ok, "%s of %s", path, body)
	return s
}

// Every answer of the simulated ECS and CLB has the members and types that the
// SDK declares, and no others; the SDK itself decodes so fuzzily that it would
// not notice.
func TestSimulatedAnswersAreStrict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := cloud.New(cloud.Config{AccessKeyID: "id", AccessKeySecret: "secret", FreeIPs: []string{"172.31.0.91", "172.31.0.92"}})
		defer c.Close()
		c.AddInstance(cloud.Instance{ID: "i-web90", Name: "web-90", PrivateIP: "172.31.0.90", PublicIP: "203.0.113.200", RAMRole: "reader", Tags: map[string]string{"env": "prod"},
			IPv6: []string{"2001:db8::1"}, SecondaryIPs: []string{"172.31.0.190"}, ENIs: []cloud.ENI{{ID: "eni-2", MAC: "00:16:3e:01:02:03", PrivateIP: "172.31.0.191"}},
			Locks: []string{"financial"}, Details: map[string]string{"CpuOptions.Core": "1", "HttpTokens": "required"}})
		c.AddInstance(cloud.Instance{ID: "i-web89", Name: "web-89", PrivateIP: "172.31.0.89"})
		c.AddInstance(cloud.Instance{ID: "i-prepaid", PrivateIP: "172.31.0.88", ChargeType: "PrePaid"})
		c.AddImage(cloud.Image{ID: "centos_7_9_x64_20G", Owner: "system"})
		c.AddLoadBalancer(cloud.LoadBalancer{ID: "lb-1", Address: "172.31.0.200", Tags: map[string]string{"a": "b"},
			Listeners: []cloud.Listener{
				{Port: 80, Protocol: "http", BackendPort: 8080, HealthCheck: true, StickySession: true, Rules: []cloud.Rule{{Name: "r", Domain: "a.example.com", VServerGroup: "rsp-1"}}},
				{Port: 81, Protocol: "tcp", MasterSlaveGroup: "ms-1", HealthCheck: true}, {Port: 82, Protocol: "udp", BackendPort: 53, HealthCheck: true},
				{Port: 443, Protocol: "https", VServerGroup: "rsp-1", HealthCheck: true},
			},
			Default:      []cloud.Backend{{ServerID: "i-web90", Weight: 100}},
			Groups:       []cloud.VServerGroup{{ID: "rsp-1", Name: "g", Backends: []cloud.Backend{{ServerID: "i-web90", Port: 8080, Weight: 100}}}},
			MasterSlaves: []cloud.MasterSlaveGroup{{ID: "ms-1", Name: "m", Master: cloud.Backend{ServerID: "i-web90", Port: 1}, Slave: cloud.Backend{ServerID: "i-web89", Port: 1}}},
		})
		c.AddLogStore("p", "s")
		rec := &recorder{next: c.Transport()}
		client, err := sdk.NewClientWithOptions("cn-hangzhou", &sdk.Config{Scheme: "HTTP", Transport: rec}, credentials.NewAccessKeyCredential("id", "secret"))
		require.NoError(t, err)
		defer client.Shutdown()
		kept := map[string]string{"later": time.Now().Add(24 * time.Hour).UTC().Format("2006-01-02T15:04:05Z"),
			"pub": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPBPPJrnOR8FKHEYuoXW6rwWbaBQHAQGRyBZxBEBgYgX"}
		done := map[string]bool{}
		for line := range strings.Lines(story) {
			line = strings.TrimSpace(line)
			if d, ok := strings.CutPrefix(line, "wait "); ok {
				span, err := time.ParseDuration(d)
				require.NoError(t, err)
				time.Sleep(span)
				continue
			}
			words := strings.Split(line, " ")
			if len(words) < 2 {
				continue
			}
			req := requests.NewCommonRequest()
			req.Domain, req.ApiName, req.Scheme = "cloud.invalid", words[1], "HTTP"
			req.Version = map[string]string{"ecs": "2014-05-26", "slb": "2014-05-15"}[words[0]]
			var keep []string
			for n := 2; n < len(words); n++ {
				if words[n] == ">" {
					n++
					keep = append(keep, words[n])
					continue
				}
				k, v, _ := strings.Cut(words[n], "=")
				for _, name := range slices.SortedFunc(maps.Keys(kept), func(a, b string) int { return len(b) - len(a) }) {
					v = strings.ReplaceAll(v, "$"+name, kept[name])
				}
				req.QueryParams[k] = v
			}
			_, err := client.ProcessCommonRequest(req)
			require.NoErrorf(t, err, "%s", line)
			name := words[0] + ":" + words[1]
			done[name] = true
			for _, k := range keep {
				as, path, _ := strings.Cut(k, "=")
				kept[as] = at(t, rec.last(), path)
			}
			make, known := answers[name]
			if !assert.Truef(t, known, "%s is not in the table of answers", name) {
				continue
			}
			body := rec.last()
			if b := beyond[name]; b != "" {
				body = regexp.MustCompile(`,"`+b+`":(true|false)`).ReplaceAll(body, nil)
			}
			dec := json.NewDecoder(bytes.NewReader(body))
			dec.DisallowUnknownFields()
			if err := dec.Decode(make()); assert.NoErrorf(t, err, "%s: %s", name, rec.last()) {
				_, more := dec.Token()
				assert.Truef(t, errors.Is(more, io.EOF), "%s: something follows", name)
			}
		}
		for _, a := range cloud.Actions() {
			if strings.HasPrefix(a, "ecs:") || strings.HasPrefix(a, "slb:") {
				assert.Truef(t, done[a], "%s is simulated, and the story does not call it", a)
			}
		}
		assert.Empty(t, c.Refused())
	})
}
