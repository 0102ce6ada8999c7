"""Every injector, registered."""

from tests.simulation import faults_lake, faults_records, faults_streams, faults_workers
from tests.simulation.faults import FAULTS

__all__ = ["FAULTS", "faults_lake", "faults_records", "faults_streams", "faults_workers"]
