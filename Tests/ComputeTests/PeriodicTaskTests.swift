@testable import ComputeService
import Database
import JSON
import Kernel
import TestKit
import Testing

/// Periodic tasks continue if they fail for one server.
@Suite struct PeriodicTaskTests {
    @Test func aServerThatCannotBeOffloadedDoesNotHoldUpOthers() async throws {
        try await TestCloud.with(settings: ComputeSettings(shelvedOffloadTime: 0)) { cloud in
            let ids = [try await cloud.createServer(), try await cloud.createServer()]
            for id in ids {
                _ = try await cloud.database.write {
                    try $0.execute(
                        """
                        UPDATE servers SET vm_state = 'shelved', power = 'shutoff', shelved_at = '2020-01-01'
                        WHERE id = \(id)
                        """)
                }
            }
            let bad = ids[0]
            try await cloud.database.write { connection in
                try connection.script(
                    """
                    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
                    BEGIN RAISE EXCEPTION 'something is wrong with this server'; END $$;
                    CREATE TRIGGER refuse BEFORE UPDATE ON servers FOR EACH ROW
                        WHEN (NEW.id = '\(bad)' AND NEW.task_state IS NOT NULL) EXECUTE FUNCTION refuse();
                    """)
            }
            try await ComputePeriodicTasks(cloud.compute).runOnce()
            let tasks = try await cloud.database.read { connection in
                try connection.query("SELECT id FROM servers WHERE task_state = 'shelving_offloading'").map { try $0.string("id") }
            }
            #expect(tasks == [ids[1]])
        }
    }
}
