package cloud

// ecsActions are the calls on instances, disks, snapshots, images and commands.
func ecsActions() []action {
	return []action{
		{name: "DescribeInstances", do: (*Cloud).describeInstances,
			served: `
				AdditionalAttributes.# ImageId InstanceChargeType InstanceIds:ids InstanceName InstanceNetworkType
				InstanceType KeyPairName MaxResults:int NextToken PageNumber:int PageSize:int PrivateIpAddresses:ids
				PublicIpAddresses:ids RegionId! SecurityGroupId Status Tag.#.Key Tag.#.Value Tag.#.key Tag.#.value
				VSwitchId VpcId ZoneId`,
			other: `
				DeviceAvailable DryRun EipAddresses Filter.1.Key Filter.1.Value Filter.2.Key Filter.2.Value Filter.3.Key
				Filter.3.Value Filter.4.Key Filter.4.Value HpcClusterId HttpEndpoint HttpPutResponseHopLimit HttpTokens
				InnerIpAddresses InstanceTypeFamily InternetChargeType IoOptimized Ipv6Address.# LockReason NeedSaleCycle
				RdmaIpAddresses ResourceGroupId`,
		},
		{name: "DescribeInstanceAttribute", do: (*Cloud).describeInstanceAttribute,
			served: `
				InstanceId!`,
		},
		{name: "DescribeInstanceStatus", do: (*Cloud).describeInstanceStatus,
			served: `
				InstanceId.# PageNumber:int PageSize:int RegionId! ZoneId`,
			other: `
				ClusterId`,
		},
		{name: "DescribeDisks", do: (*Cloud).describeDisks,
			served: `
				AdditionalAttributes.# Category DeleteWithInstance:bool DiskIds:ids DiskName DiskType InstanceId
				MaxResults:int NextToken PageNumber:int PageSize:int RegionId! Status Tag.#.Key Tag.#.Value Tag.#.key
				Tag.#.value ZoneId`,
			other: `
				AutoSnapshotPolicyId DeleteAutoSnapshot DiskChargeType DryRun EnableAutoSnapshot
				EnableAutomatedSnapshotPolicy EnableShared Encrypted Filter.1.Key Filter.1.Value Filter.2.Key
				Filter.2.Value KMSKeyId LockReason MultiAttach Portable ResourceGroupId SnapshotId`,
		},
		{name: "CreateSnapshot", do: (*Cloud).createSnapshot,
			served: `
				ClientToken Description DiskId! ResourceGroupId RetentionDays:int SnapshotName Tag.#.Key Tag.#.Value
				Tag.#.key Tag.#.value`,
			other: `
				Category InstantAccess InstantAccessRetentionDays StorageLocationArn`,
		},
		{name: "DescribeSnapshots", do: (*Cloud).describeSnapshots,
			served: `
				DiskId InstanceId MaxResults:int NextToken PageNumber:int PageSize:int RegionId! SnapshotIds:ids
				SnapshotName SnapshotType SourceDiskType Status Tag.#.Key Tag.#.Value Tag.#.key Tag.#.value Usage`,
			other: `
				Category DryRun Encrypted Filter.1.Key Filter.1.Value Filter.2.Key Filter.2.Value KMSKeyId ResourceGroupId
				SnapshotLinkId`,
		},
		{name: "DeleteSnapshot", do: (*Cloud).deleteSnapshot,
			served: `
				Force:bool SnapshotId!`,
		},
		{name: "CreateImage", do: (*Cloud).createImage,
			served: `
				Architecture BootMode ClientToken Description DetectionStrategy DiskDeviceMapping.#.Device
				DiskDeviceMapping.#.DiskType DiskDeviceMapping.#.Size:int DiskDeviceMapping.#.SnapshotId DryRun:bool
				ImageFamily ImageName ImageVersion InstanceId Platform RegionId! ResourceGroupId SnapshotId Tag.#.Key
				Tag.#.Value Tag.#.key Tag.#.value`,
			other: `
				Features.*`,
		},
		{name: "DescribeImages", do: (*Cloud).describeImages,
			served: `
				Architecture ImageFamily ImageId ImageName ImageOwnerAlias IsSupportCloudinit:bool
				IsSupportIoOptimized:bool OSType PageNumber:int PageSize:int RegionId! SnapshotId Status Tag.#.Key
				Tag.#.Value Tag.#.key Tag.#.value Usage`,
			other: `
				ActionType DryRun Filter.#.Key Filter.#.Value ImageOwnerId InstanceType IsPublic ResourceGroupId
				ShowExpired`,
		},
		{name: "DeleteImage", do: (*Cloud).deleteImage,
			served: `
				DryRun:bool Force:bool ImageId! RegionId!`,
		},
		{name: "RunInstances", do: (*Cloud).runInstances,
			served: `
				Affinity Amount:int AutoReleaseTime ClientToken CpuOptions.Core:int CpuOptions.Numa
				CpuOptions.ThreadsPerCore:int CpuOptions.TopologyType CreditSpecification DataDisk.#.AutoSnapshotPolicyId
				DataDisk.#.BurstingEnabled:bool DataDisk.#.Category DataDisk.#.DeleteWithInstance:bool
				DataDisk.#.Description DataDisk.#.Device DataDisk.#.DiskName DataDisk.#.EncryptAlgorithm
				DataDisk.#.Encrypted DataDisk.#.KMSKeyId DataDisk.#.PerformanceLevel DataDisk.#.ProvisionedIops:int
				DataDisk.#.Size:int DataDisk.#.SnapshotId DataDisk.#.StorageClusterId DedicatedHostId
				DeletionProtection:bool DeploymentSetGroupNo:int DeploymentSetId Description DryRun:bool HostName
				HpcClusterId HttpEndpoint HttpPutResponseHopLimit:int HttpTokens ImageId InstanceChargeType InstanceName
				InstanceType InternetChargeType InternetMaxBandwidthIn:int InternetMaxBandwidthOut:int IoOptimized
				KeyPairName MinAmount:int Password PasswordInherit:bool Period:int PeriodUnit PrivateIpAddress RamRoleName
				RegionId! ResourceGroupId SecurityEnhancementStrategy SecurityGroupId SecurityGroupIds.# SpotStrategy
				SystemDisk.AutoSnapshotPolicyId
				SystemDisk.BurstingEnabled:bool SystemDisk.Category SystemDisk.Description SystemDisk.DiskName SystemDisk.Encrypted:bool
				SystemDisk.KMSKeyId SystemDisk.PerformanceLevel SystemDisk.ProvisionedIops:int
				SystemDisk.Size Tag.#.Key Tag.#.Value Tenancy UserData VSwitchId ZoneId`,
			other: `
				Arn.#.AssumeRoleFor Arn.#.RoleType Arn.#.Rolearn AutoPay AutoRenew AutoRenewPeriod ClockOptions.*
				HibernationOptions.Configured HostNames.# ImageFamily ImageOptions.* Ipv6Address.# Ipv6AddressCount Isp
				LaunchTemplateId LaunchTemplateName LaunchTemplateVersion NetworkInterface.#.DeleteOnRelease
				NetworkInterface.#.Description NetworkInterface.#.InstanceType NetworkInterface.#.Ipv6Address.#
				NetworkInterface.#.Ipv6AddressCount NetworkInterface.#.NetworkCardIndex
				NetworkInterface.#.NetworkInterfaceId NetworkInterface.#.NetworkInterfaceName
				NetworkInterface.#.NetworkInterfaceTrafficMode NetworkInterface.#.PrimaryIpAddress
				NetworkInterface.#.QueueNumber NetworkInterface.#.QueuePairNumber NetworkInterface.#.RxQueueSize
				NetworkInterface.#.SecondaryPrivateIpAddressCount NetworkInterface.#.SecurityGroupId
				NetworkInterface.#.SecurityGroupIds.# NetworkInterface.#.SourceDestCheck NetworkInterface.#.TxQueueSize
				NetworkInterface.#.VSwitchId NetworkInterfaceQueueNumber NetworkOptions.* PrivateDnsNameOptions.*
				PrivatePoolOptions.Id PrivatePoolOptions.MatchCriteria SchedulerOptions.DedicatedHostClusterId
				SecurityOptions.ConfidentialComputingMode SecurityOptions.TrustedSystemMode SpotDuration
				SpotInterruptionBehavior SpotPriceLimit StorageSetId StorageSetPartitionNumber SystemDisk.* UniqueSuffix`,
		},
		{name: "StartInstance", do: (*Cloud).startInstance,
			served: `
				DryRun:bool InstanceId!`,
			other: `
				InitLocalDisk`,
		},
		{name: "StopInstance", do: (*Cloud).stopInstance,
			served: `
				ConfirmStop:bool DryRun:bool ForceStop:bool InstanceId! StoppedMode`,
			other: `
				Hibernate`,
		},
		{name: "RebootInstance", do: (*Cloud).rebootInstance,
			served: `
				DryRun:bool ForceStop:bool InstanceId!`,
		},
		{name: "DeleteInstance", do: (*Cloud).deleteInstance,
			served: `
				DryRun:bool Force:bool ForceStop:bool InstanceId! TerminateSubscription:bool`,
		},
		{name: "ModifyInstanceAutoReleaseTime", do: (*Cloud).modifyInstanceAutoReleaseTime,
			served: `
				AutoReleaseTime InstanceId!`,
		},
		{name: "ModifyInstanceAttribute", do: (*Cloud).modifyInstanceAttribute,
			served: `
				DeletionProtection:bool Description HostName InstanceId! InstanceName SecurityGroupIds.# UserData`,
			other: `
				CpuOptions.Core CpuOptions.ThreadsPerCore CpuOptions.TopologyType CreditSpecification EnableJumboFrame
				EnableNetworkEncryption NetworkInterfaceQueueNumber Password PrivateDnsNameOptions.* Recyclable
				RemoteConnectionOptions.*`,
		},
		{name: "TagResources", do: (*Cloud).tagResources,
			served: `
				RegionId! ResourceId.#! ResourceType! Tag.#.Key! Tag.#.Value!`,
		},
		{name: "DescribeUserData", do: (*Cloud).describeUserData,
			served: `
				InstanceId! RegionId!`,
		},
		{name: "DescribeInstanceRamRole", do: (*Cloud).describeInstanceRAMRole,
			served: `
				InstanceIds:ids PageNumber:int PageSize:int RamRoleName RegionId!`,
		},
		{name: "RunCommand", do: (*Cloud).runCommand,
			served: `
				ClientToken CommandContent! ContentEncoding Description EnableParameter:bool InstanceId.# KeepCommand:bool
				Name RegionId! RepeatMode ResourceGroupId Tag.#.Key Tag.#.Value TerminationMode Timeout:int Type! Username
				WorkingDir`,
			other: `
				ContainerId ContainerName Frequency Launcher OssOutputDelivery Parameters ResourceTag.#.Key
				ResourceTag.#.Value Timed WindowsPasswordName`,
		},
		{name: "DescribeInvocationResults", do: (*Cloud).describeInvocationResults,
			served: `
				CommandId ContentEncoding IncludeHistory:bool InstanceId InvokeId InvokeRecordStatus MaxResults:int
				NextToken PageNumber:int PageSize:int RegionId!`,
			other: `
				ResourceGroupId Tag.#.Key Tag.#.Value`,
		},
		{name: "DescribeCloudAssistantStatus", do: (*Cloud).describeCloudAssistantStatus,
			served: `
				InstanceId.# MaxResults:int NextToken OSType PageNumber:int PageSize:int RegionId!`,
		},
		{name: "DescribeRegions", do: (*Cloud).describeRegions,
			served: `
				AcceptLanguage InstanceChargeType ResourceType`,
		},
	}
}
