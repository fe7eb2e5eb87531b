"""Makes the security group of the cluster's nodes: SSH from your network, and everything between the nodes.

    python cluster/aws/security_group.py --region us-west-2 --ssh-from 203.0.113.7/32

prints the group's identity for `SecurityGroupIds` in cluster.yaml. It has to exist before `ray up`: to a group that Ray
makes itself it adds SSH from anywhere, whatever the cluster's file says. Running it again adds what is missing.
"""

from __future__ import annotations

import argparse
import ipaddress
import sys
from typing import Any

import boto3
from botocore.exceptions import ClientError

NAME = "v2a-ray"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--region", required=True, help="as in cluster.yaml")
    parser.add_argument("--ssh-from", required=True, type=_network, metavar="CIDR", help="where you log in from")
    parser.add_argument("--vpc", help="identity of the network; by default the region's default one")
    chosen = parser.parse_args(arguments)
    try:
        print(make_group(boto3.client("ec2", region_name=chosen.region), chosen.ssh_from, chosen.vpc))
    except (ClientError, LookupError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def make_group(ec2: Any, ssh_from: str, vpc: str | None) -> str:
    """Make the group in a VPC, or complete it; returns its identity."""
    if vpc is None:
        found = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
        if not found:
            raise LookupError("the region has no default VPC: name one with --vpc")
        vpc = found[0]["VpcId"]
    mine = [{"Name": "group-name", "Values": [NAME]}, {"Name": "vpc-id", "Values": [vpc]}]
    groups = ec2.describe_security_groups(Filters=mine)["SecurityGroups"]
    if groups:
        group: str = groups[0]["GroupId"]
    else:
        group = ec2.create_security_group(GroupName=NAME, Description="Nodes of v2a_ray", VpcId=vpc)["GroupId"]
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": ssh_from}]}
    between = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    for rule in (ssh, between):
        try:
            ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
        except ClientError as error:
            if error.response["Error"]["Code"] != "InvalidPermission.Duplicate":
                raise
    return group


def _network(text: str) -> str:
    network = ipaddress.IPv4Network(text)
    if network.prefixlen == 0:
        raise argparse.ArgumentTypeError("that is the whole internet")
    return str(network)


if __name__ == "__main__":
    sys.exit(main())
