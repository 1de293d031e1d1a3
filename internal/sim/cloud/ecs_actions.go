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
				DeviceAvailable DryRun:bool EipAddresses Filter.1.Key Filter.1.Value Filter.2.Key Filter.2.Value Filter.3.Key
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
				AutoSnapshotPolicyId DeleteAutoSnapshot DiskChargeType DryRun:bool EnableAutoSnapshot
				EnableAutomatedSnapshotPolicy EnableShared Encrypted Filter.1.Key Filter.1.Value Filter.2.Key
				Filter.2.Value KMSKeyId LockReason MultiAttach Portable ResourceGroupId SnapshotId`,
		},
		{name: "CreateSnapshot", do: (*Cloud).createSnapshot,
			served: `
				ClientToken Description DiskId! ResourceGroupId RetentionDays:int SnapshotName Tag.#.Key Tag.#.Value
				Tag.#.key Tag.#.value`,
			other: `
				Category InstantAccess:bool InstantAccessRetentionDays StorageLocationArn`,
		},
		{name: "DescribeSnapshots", do: (*Cloud).describeSnapshots,
			served: `
				DiskId InstanceId MaxResults:int NextToken PageNumber:int PageSize:int RegionId! SnapshotIds:ids
				SnapshotName SnapshotType SourceDiskType Status Tag.#.Key Tag.#.Value Tag.#.key Tag.#.value Usage`,
			other: `
				Category DryRun:bool Encrypted Filter.1.Key Filter.1.Value Filter.2.Key Filter.2.Value KMSKeyId ResourceGroupId
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
				Architecture ImageFamily ImageId:words ImageName ImageOwnerAlias IsSupportCloudinit:bool
				IsSupportIoOptimized:bool OSType PageNumber:int PageSize:int RegionId! SnapshotId Status Tag.#.Key
				Tag.#.Value Tag.#.key Tag.#.value Usage`,
			other: `
				ActionType DryRun:bool Filter.#.Key Filter.#.Value ImageOwnerId InstanceType IsPublic ResourceGroupId
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
				Arn.#.AssumeRoleFor Arn.#.RoleType Arn.#.Rolearn AutoPay AutoRenew:bool AutoRenewPeriod ClockOptions.*
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
				SpotInterruptionBehavior SpotPriceLimit:int StorageSetId StorageSetPartitionNumber SystemDisk.* UniqueSuffix`,
		},
		{name: "CreateInstance", do: (*Cloud).createInstance,
			served: `
				Affinity ClientToken CreditSpecification DataDisk.#.Category DataDisk.#.DeleteWithInstance:bool
				DataDisk.#.Description DataDisk.#.Device DataDisk.#.DiskName DataDisk.#.EncryptAlgorithm
				DataDisk.#.Encrypted DataDisk.#.KMSKeyId DataDisk.#.PerformanceLevel DataDisk.#.Size:int
				DataDisk.#.SnapshotId DedicatedHostId DeletionProtection:bool DeploymentSetGroupNo:int DeploymentSetId
				Description DryRun:bool HostName HpcClusterId HttpEndpoint HttpPutResponseHopLimit:int HttpTokens ImageId
				InstanceChargeType InstanceName InstanceType! InternetChargeType InternetMaxBandwidthIn:int
				InternetMaxBandwidthOut:int IoOptimized KeyPairName Password PasswordInherit:bool Period:int PeriodUnit
				PrivateIpAddress RamRoleName RegionId! ResourceGroupId SecurityEnhancementStrategy SecurityGroupId
				SpotStrategy SystemDisk.Category SystemDisk.Description SystemDisk.DiskName SystemDisk.PerformanceLevel
				SystemDisk.Size Tag.#.Key Tag.#.Value Tag.#.key Tag.#.value Tenancy UserData VSwitchId ZoneId`,
			other: `
				Arn.#.AssumeRoleFor Arn.#.RoleType Arn.#.Rolearn AutoRenew:bool AutoRenewPeriod ClusterId
				HibernationOptions.Configured ImageFamily InnerIpAddress NodeControllerId PrivatePoolOptions.Id
				PrivatePoolOptions.MatchCriteria SpotDuration SpotInterruptionBehavior SpotPriceLimit:int StorageSetId
				StorageSetPartitionNumber SystemDisk.* UseAdditionalService VlanId`,
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
				CreditSpecification DeletionProtection:bool Description HostName InstanceId! InstanceName Password
				SecurityGroupIds.# UserData`,
			other: `
				CpuOptions.Core CpuOptions.ThreadsPerCore CpuOptions.TopologyType EnableJumboFrame
				EnableNetworkEncryption NetworkInterfaceQueueNumber PrivateDnsNameOptions.* Recyclable
				RemoteConnectionOptions.*`,
		},
		{name: "StartInstances", do: (*Cloud).startInstances,
			served: `
				BatchOptimization DryRun:bool InstanceId.#! RegionId!`,
		},
		{name: "StopInstances", do: (*Cloud).stopInstances,
			served: `
				BatchOptimization DryRun:bool ForceStop:bool InstanceId.#! RegionId! StoppedMode`,
		},
		{name: "DeleteInstances", do: (*Cloud).deleteInstances,
			served: `
				ClientToken DryRun:bool Force:bool ForceStop:bool InstanceId.#! RegionId! TerminateSubscription:bool`,
		},
		{name: "AllocatePublicIpAddress", do: (*Cloud).allocatePublicIPAddress,
			served: `
				InstanceId!`,
			other: `
				IpAddress VlanId`,
		},
		{name: "GetInstanceConsoleOutput", do: (*Cloud).getInstanceConsoleOutput,
			served: `
				InstanceId! RegionId! RemoveSymbols:bool`,
		},
		{name: "GetInstanceScreenshot", do: (*Cloud).getInstanceScreenshot,
			served: `
				InstanceId! RegionId! WakeUp:bool`,
		},
		{name: "DescribeInstanceMaintenanceAttributes", do: (*Cloud).describeInstanceMaintenanceAttributes,
			served: `
				InstanceId.# PageNumber:int PageSize:int RegionId!`,
		},
		{name: "DescribeInstanceAttachmentAttributes", do: (*Cloud).describeInstanceAttachmentAttributes,
			served: `
				InstanceIds:ids! PageNumber:int PageSize:int RegionId!`,
		},
		{name: "DescribeInstanceAutoRenewAttribute", do: (*Cloud).describeInstanceAutoRenewAttribute,
			served: `
				InstanceId:words PageNumber:int PageSize:int RegionId!`,
			other: `
				RenewalStatus`,
		},
		{name: "CreateSnapshotGroup", do: (*Cloud).createSnapshotGroup,
			served: `
				ClientToken Description DiskId.# ExcludeDiskId.# InstanceId Name RegionId! ResourceGroupId Tag.#.Key
				Tag.#.Value`,
			other: `
				InstantAccess:bool InstantAccessRetentionDays StorageLocationArn`,
		},
		{name: "DescribeSnapshotGroups", do: (*Cloud).describeSnapshotGroups,
			served: `
				InstanceId MaxResults:int Name NextToken RegionId! SnapshotGroupId.# Status.# Tag.#.Key Tag.#.Value`,
			other: `
				AdditionalAttributes.# ResourceGroupId`,
		},
		{name: "DeleteSnapshotGroup", do: (*Cloud).deleteSnapshotGroup,
			served: `
				RegionId! SnapshotGroupId!`,
		},
		{name: "ModifySnapshotAttribute", do: (*Cloud).modifySnapshotAttribute,
			served: `
				Description DisableInstantAccess:bool RetentionDays:int SnapshotId! SnapshotName`,
		},
		{name: "ModifyImageAttribute", do: (*Cloud).modifyImageAttribute,
			served: `
				BootMode Description DryRun:bool ImageFamily ImageId! ImageName RegionId! Status`,
			other: `
				Features.* LicenseType`,
		},
		{name: "ModifyImageSharePermission", do: (*Cloud).modifyImageSharePermission,
			served: `
				AddAccount.# DryRun:bool ImageId! RegionId! RemoveAccount.#`,
			other: `
				IsPublic LaunchPermission`,
		},
		{name: "DescribeImageSharePermission", do: (*Cloud).describeImageSharePermission,
			served: `
				ImageId! PageNumber:int PageSize:int RegionId!`,
		},
		{name: "CopyImage", do: (*Cloud).copyImage,
			served: `
				ClientToken DestinationDescription DestinationImageName DestinationRegionId DryRun:bool ImageId! RegionId!
				ResourceGroupId Tag.#.Key Tag.#.Value`,
			other: `
				EncryptAlgorithm Encrypted KMSKeyId`,
		},
		{name: "CreateDisk", do: (*Cloud).createDisk,
			served: `
				BurstingEnabled:bool ClientToken Description DiskCategory DiskName Encrypted:bool InstanceId KMSKeyId
				MultiAttach PerformanceLevel ProvisionedIops:int RegionId! ResourceGroupId Size:int SnapshotId Tag.#.Key
				Tag.#.Value Tag.#.key Tag.#.value ZoneId`,
			other: `
				AdvancedFeatures Arn.#.AssumeRoleFor Arn.#.RoleType Arn.#.Rolearn EncryptAlgorithm StorageClusterId
				StorageSetId StorageSetPartitionNumber`,
		},
		{name: "AttachDisk", do: (*Cloud).attachDisk,
			served: `
				DeleteWithInstance:bool Device DiskId! InstanceId!`,
			other: `
				Bootable Force KeyPairName Password`,
		},
		{name: "DetachDisk", do: (*Cloud).detachDisk,
			served: `
				DiskId! InstanceId!`,
			other: `
				DeleteWithInstance`,
		},
		{name: "DeleteDisk", do: (*Cloud).deleteDisk,
			served: `
				DiskId!`,
		},
		{name: "ModifyDiskAttribute", do: (*Cloud).modifyDiskAttribute,
			served: `
				BurstingEnabled:bool DeleteWithInstance:bool Description DiskId DiskIds.# DiskName`,
			other: `
				DeleteAutoSnapshot EnableAutoSnapshot`,
		},
		{name: "ResetDisk", do: (*Cloud).resetDisk,
			served: `
				DiskId! DryRun:bool SnapshotId!`,
		},
		{name: "ResetDisks", do: (*Cloud).resetDisks,
			served: `
				Disk.#.DiskId Disk.#.SnapshotId DryRun:bool RegionId!`,
		},
		{name: "ReplaceSystemDisk", do: (*Cloud).replaceSystemDisk,
			served: `
				ClientToken ImageId InstanceId! KeyPairName Password PasswordInherit:bool SecurityEnhancementStrategy
				SystemDisk.Size:int`,
			other: `
				Architecture Arn.#.AssumeRoleFor Arn.#.RoleType Arn.#.Rolearn DiskId EncryptAlgorithm Encrypted KMSKeyId
				Platform UseAdditionalService`,
		},
		{name: "DescribeAvailableResource", do: (*Cloud).describeAvailableResource,
			served: `
				Cores:int DataDiskCategory DestinationResource! InstanceChargeType InstanceType IoOptimized Memory
				NetworkCategory RegionId! ResourceType SpotStrategy SystemDiskCategory ZoneId`,
			other: `
				DedicatedHostId Scope SpotDuration`,
		},
		{name: "DescribePrice", do: (*Cloud).describePrice,
			served: `
				Amount:int DataDisk.#.Category DataDisk.#.PerformanceLevel DataDisk.#.Size:int ImageId InstanceNetworkType
				InstanceType InternetChargeType InternetMaxBandwidthOut:int IoOptimized Period:int PriceUnit RegionId!
				ResourceType SpotStrategy SystemDisk.Category SystemDisk.PerformanceLevel SystemDisk.Size:int ZoneId`,
			other: `
				AssuranceTimes Capacity DataDisk.#.ProvisionedIops DedicatedHostType InstanceAmount InstanceCpuCoreCount
				InstanceTypeList.# Isp OfferingType Platform RecurrenceRules.#.EndHour RecurrenceRules.#.RecurrenceType
				RecurrenceRules.#.RecurrenceValue RecurrenceRules.#.StartHour SchedulerOptions.DedicatedHostId
				SchedulerOptions.DeploymentSetStrategy Scope SpotDuration StartTime`,
		},
		{name: "DescribeInstanceTypes", do: (*Cloud).describeInstanceTypes,
			served: `
				InstanceTypeFamily InstanceTypes.# MaxResults:int MaximumCpuCoreCount:int MaximumMemorySize:int
				MinimumCpuCoreCount:int MinimumMemorySize:int NextToken`,
			other: `
				AdditionalAttributes.# CpuArchitecture CpuArchitectures.# GPUSpec GpuSpecs.# InstanceCategories.#
				InstanceCategory InstanceFamilyLevel InstanceTypeFamilies.# LocalStorageCategory NvmeSupport`,
		},
		{name: "DescribeZones", do: (*Cloud).describeZones,
			served: `
				AcceptLanguage InstanceChargeType RegionId! Verbose:bool`,
			other: `
				SpotStrategy`,
		},
		{name: "DescribeTasks", do: (*Cloud).describeTasks,
			served: `
				EndTime PageNumber:int PageSize:int RegionId! ResourceIds.# StartTime TaskAction TaskGroupId TaskIds
				TaskStatus`,
		},
		{name: "UntagResources", do: (*Cloud).untagResources,
			served: `
				All:bool RegionId! ResourceId.#! ResourceType! TagKey.#`,
		},
		{name: "ListTagResources", do: (*Cloud).listTagResources,
			served: `
				NextToken RegionId! ResourceId.# ResourceType! Tag.#.Key Tag.#.Value`,
			other: `
				TagFilter.#.TagKey TagFilter.#.TagValues.#`,
		},
		{name: "AddTags", do: (*Cloud).addTags,
			served: `
				RegionId! ResourceId! ResourceType! Tag.#.Key Tag.#.Value Tag.#.key Tag.#.value`,
		},
		{name: "RemoveTags", do: (*Cloud).removeTags,
			served: `
				RegionId! ResourceId! ResourceType! Tag.#.Key Tag.#.Value Tag.#.key Tag.#.value`,
		},
		{name: "DescribeTags", do: (*Cloud).describeTags,
			served: `
				PageNumber:int PageSize:int RegionId! ResourceId ResourceType Tag.#.Key Tag.#.Value Tag.#.key Tag.#.value`,
			other: `
				Category`,
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
		{name: "DescribeInvocations", do: (*Cloud).describeInvocations,
			served: `
				CommandId CommandName CommandType ContentEncoding IncludeOutput:bool InstanceId InvokeId InvokeStatus
				MaxResults:int NextToken PageNumber:int PageSize:int RegionId! Tag.#.Key Tag.#.Value`,
			other: `
				RepeatMode ResourceGroupId Timed`,
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
